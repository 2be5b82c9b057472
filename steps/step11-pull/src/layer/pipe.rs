//! A pipe between two threads: the one that fetches, and the one that unpacks.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How many pieces may wait, of at most 128 KiB.
const WAITING: usize = 8;

/// The end that is written to. Whoever reads sees an end only if [`Writer::end`] was called.
pub struct Writer(SyncSender<Vec<u8>>);

/// The end that is read from.
pub struct Reader {
    pieces: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    has_ended: bool,
}

/// A new pipe.
pub fn pipe() -> (Writer, Reader) {
    let (sender, pieces) = sync_channel(WAITING);
    let reader = Reader {
        pieces,
        piece: Vec::new(),
        at: 0,
        has_ended: false,
    };
    (Writer(sender), reader)
}

impl Writer {
    /// Ends the stream well.
    pub fn end(self) {
        let _ = self.0.send(Vec::new());
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            let sent = self.0.send(bytes.to_vec());
            sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() && !self.has_ended {
            match self.pieces.recv() {
                Ok(piece) if piece.is_empty() => self.has_ended = true,
                Ok(piece) => (self.piece, self.at) = (piece, 0),
                Err(_) => return Err(io::Error::other("whoever fetches it has stopped")),
            }
        }
        let rest = &self.piece[self.at..];
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        self.at += read;
        Ok(read)
    }
}
