// The size isn't looked at: only the end would show that there are too many bytes, and a stream may have none.
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.seen += read as u64;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        match Digest::finish(self.hash.clone()) {
            digest if digest == self.digest => Ok(0),
            _ => Err(mismatch("its bytes are not those of its digest")),
        }
