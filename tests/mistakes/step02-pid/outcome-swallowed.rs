// What the child reported is read, and thrown away.
    drop(self.writer);
    let mut text = Vec::new();
    (&self.reader).read_to_end(&mut text)?;
    Ok(())
