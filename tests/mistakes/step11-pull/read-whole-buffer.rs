// The buffer may be longer than what was read into it.
        let read = self.inner.read(buffer)?;
        self.hash.update(&*buffer);
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
