//! A model, file by file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cache::make_parent;
use crate::fetch::{Patience, fetch};
use crate::http::{Client, Remote};
use crate::partial::Partial;
use crate::{Cache, Error, Repo};

/// What happens while a model is downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A file begins, of which so many bytes are there already: all, some of a download that was interrupted, or none.
    File {
        /// Its name.
        name: String,
        /// Its bytes.
        size: u64,
        /// Those that are there.
        have: u64,
    },
    /// Bytes of it that are there. Not more often than ten times a second; fewer than before where the server makes it start again.
    Have(u64),
    /// All are there, and they are checked.
    Checking,
    /// Another program downloads this file, and this one waits for it.
    Locked,
    /// Something went wrong, and is tried again after a while.
    Waiting {
        /// What.
        why: String,
        /// How long.
        wait: Duration,
    },
}

/// A hub, and the cache that its files go to.
pub struct Hub {
    client: Client,
    cache: Cache,
    first_wait: Duration,
}

impl Hub {
    /// At an address such as `https://huggingface.co`. The token goes to that address only.
    ///
    /// # Errors
    /// [`Error::Endpoint`] when it is none, [`Error::Token`] when the token cannot be sent.
    pub fn new(endpoint: &str, token: Option<&str>, cache: Cache) -> Result<Self, Error> {
        Ok(Self { client: Client::new(endpoint, token)?, cache, first_wait: Patience::FIRST_WAIT })
    }

    /// Believes the authorities whose certificates are in a PEM file, and no others; without this, those that Mozilla's browsers believe.
    ///
    /// # Errors
    /// [`Error::Certificates`] when there are none.
    pub fn with_certificates(mut self, pem: &[u8]) -> Result<Self, Error> {
        self.client.trust(pem)?;
        Ok(self)
    }

    /// Waits so long before it tries something for the second time, and twice as long each time after that. A server that says how
    /// long to wait is believed instead.
    pub fn with_first_wait(self, first_wait: Duration) -> Self {
        Self { first_wait, ..self }
    }

    /// Brings what `choose` names of the files of a repository's main branch into the cache, and returns the folder that they are in.
    /// What is there already is not downloaded again. `choose` gets the names of all files; where it names none, there is no model.
    ///
    /// # Errors
    /// See [`Error`]. Nothing that has come is lost by one, but for a file whose checksum is wrong.
    pub fn download(
        &self,
        repo: &Repo,
        choose: &dyn Fn(&[String]) -> Vec<String>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<PathBuf, Error> {
        let listing = self.patiently(tell, || self.client.list(repo))?;
        let names = choose(&listing.names);
        if names.is_empty() {
            let some: Vec<&str> = listing.names.iter().map(String::as_str).take(20).collect();
            return Err(Error::NoFiles { repo: repo.clone(), names: some.join(", ") });
        }
        let describe = |name: &String| self.patiently(tell, || self.client.describe(repo, &listing.commit, name));
        let files: Vec<Remote> = names.iter().map(describe).collect::<Result<_, _>>()?;
        let snapshot = self.cache.snapshot_of(repo, &listing.commit);
        self.make_room(repo, &snapshot, &files)?;
        for file in &files {
            self.get(repo, &snapshot, file, tell)?;
        }
        self.cache.point_main_to(repo, &listing.commit)?;
        Ok(snapshot)
    }

    /// Tries again what may pass.
    fn patiently<T>(&self, tell: &mut dyn FnMut(Event), ask: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        let mut patience = Patience::new(self.first_wait);
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    let wait = patience.after(error)?;
                    tell(wait.event());
                    std::thread::sleep(wait.wait);
                }
            }
        }
    }

    /// Refuses what will not fit, before anything is downloaded.
    fn make_room(&self, repo: &Repo, snapshot: &Path, files: &[Remote]) -> Result<(), Error> {
        let missing = files.iter().filter(|file| !has_size(&snapshot.join(&file.name), file.size)).map(|file| {
            let blob = self.cache.blob(repo, &file.checksum);
            if has_size(&blob, file.size) { 0 } else { Partial::missing_of(&unfinished(&blob), file.size) }
        });
        let needed = missing.fold(0, u64::saturating_add);
        if needed == 0 {
            return Ok(());
        }
        let dir = self.cache.dir();
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let free = fs4::available_space(dir).map_err(Error::io(dir))?;
        if needed > free {
            let mb = 1_000_000;
            return Err(Error::NoRoom { path: dir.to_owned(), needed: needed.div_ceil(mb), free: free / mb });
        }
        Ok(())
    }

    /// Sees to it that a file is in its place.
    fn get(&self, repo: &Repo, snapshot: &Path, file: &Remote, tell: &mut dyn FnMut(Event)) -> Result<(), Error> {
        let place = snapshot.join(&file.name);
        let begin = |have| Event::File { name: file.name.clone(), size: file.size, have };
        let is_there = || has_size(&place, file.size);
        if is_there() {
            tell(begin(file.size));
            return Ok(());
        }
        let blob = self.cache.blob(repo, &file.checksum);
        make_parent(&blob)?;
        let _lock = self.cache.lock(repo, &file.checksum, || tell(Event::Locked))?;
        // Another program may have put it there meanwhile, and where it makes no links, it leaves no blob to find.
        if is_there() {
            tell(begin(file.size));
            return Ok(());
        }
        let is_new = !has_size(&blob, file.size);
        if is_new {
            let path = unfinished(&blob);
            let mut partial = Partial::open(&path, file.size).map_err(Error::io(&path))?;
            tell(begin(partial.have()));
            fetch(&self.client, repo, file, &path, &mut partial, self.first_wait, tell)?;
            tell(Event::Checking);
            self.check(file, &path, partial)?;
            fs::rename(&path, &blob).map_err(Error::io(&blob))?;
        } else {
            tell(begin(file.size));
        }
        self.cache.place(&blob, &place, is_new)
    }

    /// Holds what came to its checksum, and lets it reach the disk.
    fn check(&self, file: &Remote, path: &Path, partial: Partial) -> Result<(), Error> {
        let found =
            partial.bytes().and_then(|bytes| file.checksum.of_bytes(bytes, file.size)).map_err(Error::io(path))?;
        if found == file.checksum {
            return partial.finish().map_err(Error::io(path));
        }
        fs::remove_file(path).map_err(Error::io(path))?;
        let [promised, found] = [&file.checksum, &found].map(|checksum| checksum.as_str().to_owned());
        Err(Error::Corrupt { name: file.name.clone(), promised, found })
    }
}

/// Where the bytes of a blob are until all are there. Programs that clean the cache know such names.
fn unfinished(blob: &Path) -> PathBuf {
    blob.with_extension("voxtral.incomplete")
}

fn has_size(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == size)
}
