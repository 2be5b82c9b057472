// A connection that fails is taken for a wrong blob, and what has come for nothing.
        let read = self.inner.read(buffer);
        let read = read.map_err(|error| mismatch(&error.to_string()))?;
        self.hash.update(&buffer[..read]);
        self.seen += read as u64;
        let size = self.size.unwrap_or(self.seen);
        if self.seen > size {
            return Err(mismatch("more bytes come than its size says"));
        }
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        if self.seen < size {
            return Err(mismatch("it ends before its size"));
        }
        match Digest::finish(self.hash.clone()) {
            digest if digest == self.digest => Ok(0),
            _ => Err(mismatch("its bytes are not those of its digest")),
        }
