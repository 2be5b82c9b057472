// As long as the parent holds a writing end itself, there is no end-of-file.
    let mut text = Vec::new();
    (&self.reader).read_to_end(&mut text)?;
    if text.is_empty() {
        return Ok(());
    }
    Err(serde_json::from_slice::<Report>(&text)?.into_error())
