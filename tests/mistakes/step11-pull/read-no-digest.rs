// As many bytes as promised are taken for the bytes that were promised.
        let read = self.inner.read(buffer)?;
        self.seen += read as u64;
        let size = self.size.unwrap_or(self.seen);
        if self.seen > size {
            return Err(mismatch("more bytes come than its size says"));
        }
        if read == 0 && !buffer.is_empty() && self.seen < size {
            return Err(mismatch("it ends before its size"));
        }
        Ok(read)
