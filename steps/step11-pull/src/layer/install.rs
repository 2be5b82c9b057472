//! All layers of an image, two at a time: each is hashed and unpacked while it comes.

use crate::layer::download::Download;
use crate::layer::fit::{fit, hides_all};
use crate::layer::pipe::{Writer, pipe};
use crate::layer::progress::{LayerProgress, Progress};
use crate::layer::unpack::unpack;
use crate::manifest::parts::{Image, Layer};
use crate::registry::client::Registry;
use crate::registry::name::ImageName;
use crate::store::ImageStore;
use crate::store::blobs::{NewLayer, Part};
use crate::{Mismatch, Verified};
use anyhow::{Context, Error, Result, anyhow, bail};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use step08_overlay::image::open_ends::{OpenEnds, fit_lowest};
use step08_overlay::layers::show;

/// As many layers come at the same time.
const AT_ONCE: usize = 2;

/// The bytes that are read at once.
const PIECE: usize = 128 * 1024;

/// How many more bytes are fetched of a layer that can't be unpacked, to see whether they are the right ones.
const WORTH_FETCHING: u64 = 64 * 1024 * 1024;

/// How many bytes more a layer's archive may have than what it unpacks to: no compression makes more of it than this.
const SLACK: u64 = 64 * 1024;

/// Where an image's layers come from, and go to.
pub struct Source<'a> {
    /// The registry, and the image's name there; `None`: their archives are in the store.
    pub registry: Option<(&'a Registry, &'a ImageName)>,
    /// Where they are kept.
    pub store: &'a ImageStore,
    /// The most bytes that a layer may unpack to.
    pub limit: u64,
    /// What people are told when a layer is there.
    pub done: &'static str,
}

/// How far the work has got.
#[derive(Default)]
struct Turn {
    /// The layer that nobody has begun yet.
    next: usize,
    /// How many layers are there, from the lowest on.
    done: usize,
    /// The first failure, which ends all.
    failed: Option<Error>,
}

/// The work on one image.
struct Work<'a> {
    source: &'a Source<'a>,
    image: &'a Image,
    bars: Vec<LayerProgress>,
    turn: Mutex<Turn>,
    turned: Condvar,
}

impl Source<'_> {
    /// Fetches the layers of `image` that aren't there.
    ///
    /// # Errors
    /// The first layer that doesn't come, or can't be unpacked. What is fetched so far is kept for the next time, unless
    /// it is wrong.
    pub fn install(&self, image: &Image, progress: &Progress) -> Result<()> {
        for layer in &image.layers {
            // Compressed bytes that unpack to nothing would have no end otherwise.
            let most = self.limit.saturating_add(self.limit / 64 + SLACK);
            if layer.blob.size > most {
                bail!(
                    "layer {} has {} bytes, and may unpack to {}\nhelp: --max-size allows more",
                    layer.blob.digest.short(),
                    layer.blob.size,
                    self.limit
                );
            }
        }
        let bars = image.layers.iter();
        let bars = bars.map(|layer| progress.layer(&layer.blob.digest, layer.blob.size));
        let work = Work {
            source: self,
            image,
            bars: bars.collect(),
            turn: Mutex::default(),
            turned: Condvar::new(),
        };
        thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(image.layers.len()) {
                scope.spawn(|| work.go_on());
            }
        });
        let turn = work
            .turn
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        turn.failed.map_or(Ok(()), Err)
    }
}

impl Work<'_> {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one layer after the other, until there is none or one has failed.
    fn go_on(&self) {
        let _end = Ending(self);
        loop {
            let index = {
                let mut turn = self.turn();
                if turn.failed.is_some() || turn.next == self.image.layers.len() {
                    return;
                }
                turn.next += 1;
                turn.next - 1
            };
            let made = self.make(index).with_context(|| {
                let layer = &self.image.layers[index].blob.digest;
                let all = self.image.layers.len();
                format!("layer {} of {all} ({})", index + 1, layer.short())
            });
            let mut turn = self.turn();
            match made {
                Ok(true) => turn.done = index + 1,
                Ok(false) => {}
                Err(error) => drop(turn.failed.get_or_insert(error)),
            }
            self.turned.notify_all();
        }
    }

    /// Makes a layer, and returns whether it is there: another one may have failed.
    fn make(&self, index: usize) -> Result<bool> {
        let (layer, bar) = (&self.image.layers[index], &self.bars[index]);
        let store = self.source.store;
        let Some(new) = store.begin_layer(&layer.chain_id)? else {
            bar.ends("Already exists");
            return Ok(self.wait_for(index));
        };
        match self.fill(index, &new) {
            Ok(Some(size)) => {
                new.appear(size)?;
                bar.ends(self.source.done);
                Ok(true)
            }
            Ok(None) => new.discard().map(|()| false),
            Err(error) => {
                new.discard()?;
                Err(error)
            }
        }
    }

    /// Waits until all layers below `index` are there; `false`: one has failed.
    fn wait_for(&self, index: usize) -> bool {
        let mut turn = self.turn();
        while turn.done < index && turn.failed.is_none() {
            turn = self
                .turned
                .wait(turn)
                .unwrap_or_else(PoisonError::into_inner);
        }
        turn.failed.is_none()
    }

    /// Fills a new layer, and returns the size of its archive; `None`: another layer has failed.
    fn fill(&self, index: usize, new: &NewLayer) -> Result<Option<u64>> {
        let (layer, bar) = (&self.image.layers[index], &self.bars[index]);
        let root = new.root()?;
        let unpacked = match self.fetch(layer, &root, bar) {
            // What was kept from another time was wrong. It is gone, and once more is all of it.
            Err(Failure::Kept) => self.fetch(layer, &new.root()?, bar),
            unpacked => unpacked,
        };
        let (open, size) = unpacked.map_err(Failure::error)?;
        bar.becomes("Unpacked");
        if !self.wait_for(index) {
            return Ok(None);
        }
        match lower(self.source.store, &self.image.layers[..index])?.as_slice() {
            [] => fit_lowest(&root, &open)?,
            layers => {
                let layers = layers.iter().map(PathBuf::as_path).collect();
                let left = self.source.limit.saturating_sub(size);
                let fit = |below: &Path| fit(&root, below, &open, left);
                return Ok(Some(size + show(layers, &new.below()?, fit)?));
            }
        }
        Ok(Some(size))
    }

    /// Fetches a layer, unless its archive is there, and unpacks it meanwhile.
    fn fetch(
        &self,
        layer: &Layer,
        root: &Path,
        bar: &LayerProgress,
    ) -> Result<(OpenEnds, u64), Failure> {
        let store = self.source.store;
        let Some(part) = store.begin(&layer.blob.digest)? else {
            let path = store.blob(&layer.blob.digest);
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            bar.becomes("Unpacking");
            let size = Some(layer.blob.size);
            let archive = Verified::new(file, layer.blob.digest.clone(), size);
            return Ok(unpack(archive, layer, root, self.source.limit)?);
        };
        let Some(from) = self.source.registry else {
            part.discard()?;
            return Err(anyhow!("its archive isn't there any more").into());
        };
        bar.becomes("Downloading");
        let kept = part.kept()?.min(layer.blob.size);
        let (writer, reader) = pipe();
        let (fetched, unpacked) = thread::scope(|scope| {
            let unpacked = scope.spawn(|| unpack(reader, layer, root, self.source.limit));
            let fetched = self.receive(from, layer, &part, kept, writer, bar);
            let unpacked = unpacked.join();
            (
                fetched,
                unpacked.unwrap_or_else(|_| Err(anyhow!("the unpacking has failed"))),
            )
        });
        match fetched {
            Ok(true) => part.appear()?,
            // Another layer has failed, or it was no use to go on.
            Ok(false) => {}
            Err(error) => {
                let is_wrong = error.get_ref().is_some_and(|inner| inner.is::<Mismatch>());
                if is_wrong {
                    part.discard()?;
                    if kept > 0 {
                        return Err(Failure::Kept);
                    }
                }
                return Err(Error::new(error).into());
            }
        }
        Ok(unpacked?)
    }

    /// Receives the bytes of a layer into `part`, and passes them on. Returns whether they are all there, and right.
    fn receive(
        &self,
        (registry, name): (&Registry, &ImageName),
        layer: &Layer,
        part: &Part,
        kept: u64,
        writer: Writer,
        bar: &LayerProgress,
    ) -> io::Result<bool> {
        let mut file: &File = &part.file;
        file.set_len(kept)?;
        file.seek(SeekFrom::Start(0))?;
        let old = BufReader::with_capacity(PIECE, file.take(kept));
        let new = Download::new(registry, name, &layer.blob, kept);
        let (digest, size) = (layer.blob.digest.clone(), layer.blob.size);
        let mut stream = Verified::new(old.chain(new), digest, Some(size));
        let mut writer = Some(writer);
        let mut piece = vec![0; PIECE];
        loop {
            let before = stream.seen;
            let read = match stream.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                if let Some(writer) = writer {
                    writer.end();
                }
                return Ok(true);
            }
            if before >= kept {
                file.write_all(&piece[..read])?;
            }
            bar.is_at(stream.seen);
            if writer
                .as_mut()
                .is_some_and(|writer| writer.write_all(&piece[..read]).is_err())
            {
                // The unpacking has failed. Perhaps because these aren't the right bytes: then that is what to tell.
                writer = None;
            }
            let is_no_use = writer.is_none() && size - stream.seen > WORTH_FETCHING;
            if is_no_use || self.turn().failed.is_some() {
                return Ok(false);
            }
        }
    }
}

/// The end of a thread's work. If the thread panics, the others don't wait for its layer.
struct Ending<'a>(&'a Work<'a>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut turn = self.0.turn();
            turn.failed
                .get_or_insert_with(|| anyhow!("a part of this program has failed"));
            self.0.turned.notify_all();
        }
    }
}

/// Why a layer didn't come.
enum Failure {
    /// What was kept from another time was wrong, and is gone.
    Kept,
    /// Anything else.
    Other(Error),
}

impl Failure {
    fn error(self) -> Error {
        match self {
            Failure::Kept => anyhow!("what was kept of it was wrong, twice"),
            Failure::Other(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Other(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Other(error.into())
    }
}

/// The directories that `layers` make up a root of, the topmost first. A layer that hides all that is below it is the
/// last.
///
/// # Errors
/// A layer that isn't there.
pub fn lower(store: &ImageStore, layers: &[Layer]) -> Result<Vec<PathBuf>> {
    let mut roots = Vec::new();
    for layer in layers.iter().rev() {
        let root = store.layer_root(&layer.chain_id);
        let hides_all = hides_all(&root)?;
        roots.push(root);
        if hides_all {
            break;
        }
    }
    Ok(roots)
}
