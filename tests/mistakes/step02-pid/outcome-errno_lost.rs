// That something failed is all that is left of what the kernel said.
    drop(self.writer);
    let mut text = Vec::new();
    (&self.reader).read_to_end(&mut text)?;
    if text.is_empty() {
        return Ok(());
    }
    Err(anyhow!("the child failed"))
