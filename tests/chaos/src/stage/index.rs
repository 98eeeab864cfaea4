//! The search index of a scene, as a disk sees it: where it is, when it is written, and what becomes of its
//! files.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::Stage;
use crate::installation::LIMIT;
use crate::process::now;

/// The view that is an index.
pub const SEARCH: &str = "product-search";

impl Stage {
    /// Returns the folder of the search view in the process' data.
    #[must_use]
    pub fn search_folder(&self) -> PathBuf {
        let data = self.installation.run.data();
        data.join(&self.installation.name).join(SEARCH)
    }

    /// Returns the folder of a version's index.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn index(&self, number: u64) -> PathBuf {
        let name = format!("v{number}-c0-");
        let folder = self.search_folder();
        let mut folders = entries(&folder).into_iter();
        let is_it = |path: &PathBuf| path.is_dir() && begins_with(path, &name);
        folders.find(is_it).expect("an index")
    }

    /// Waits until the index of a version has committed once more.
    ///
    /// # Panics
    /// Where it does not.
    pub fn await_index_commit(&self, number: u64) {
        let began = now();
        let meta = self.index(number).join("meta.json");
        // Each commit renames another file into place.
        let inode = || fs::metadata(&meta).map(|meta| meta.ino()).ok();
        let before = inode();
        while inode() == before {
            assert!(began.elapsed() < LIMIT, "the index does not commit");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Asks the gateway for a document of the search view.
    ///
    /// # Errors
    /// The status other than 200.
    ///
    /// # Panics
    /// Where nobody answers.
    pub fn searched(&self, key: u32) -> Result<Value, u16> {
        let http = self.installation.run.http;
        let url = format!("http://127.0.0.1:{http}/v1/views/{SEARCH}/documents/{key}");
        match ureq::get(&url).call() {
            Ok(mut answer) => {
                let text = answer.body_mut().read_to_string().expect("a document");
                Ok(serde_json::from_str(&text).expect("JSON"))
            }
            Err(ureq::Error::StatusCode(status)) => Err(status),
            Err(error) => panic!("{url}: {error}"),
        }
    }

    /// Says how many of the first documents of the search view are there.
    ///
    /// # Panics
    /// Where one is neither there nor said not to be.
    #[must_use]
    pub fn found(&self) -> usize {
        let is_there = |key: &u32| match self.searched(*key) {
            Ok(_) => true,
            Err(status) => {
                assert_eq!(status, 404, "document {key}");
                false
            }
        };
        (0..40).filter(is_there).count()
    }
}

/// Returns what a folder holds.
///
/// # Panics
/// Where it is none.
#[must_use]
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// Says whether a path's last part begins with some text.
fn begins_with(path: &Path, text: &str) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with(text)
}

/// Alters bytes in the middle of the largest file of rows in an index, in place, and returns its name.
///
/// # Panics
/// Where there is none.
pub fn alter(index: &Path) -> String {
    let stores = entries(index).into_iter();
    let stores = stores.filter(|path| path.extension().is_some_and(|kind| kind == "store"));
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
    let largest = stores.max_by_key(size).expect("a file of rows");
    let file = File::options().read(true).write(true).open(&largest);
    let file = file.expect("a file");
    let middle = file.metadata().expect("a size").len() / 2;
    let mut bytes = [0; 16];
    file.read_exact_at(&mut bytes, middle).expect("read");
    let altered = bytes.map(|byte| !byte);
    file.write_all_at(&altered, middle).expect("written");
    let name = largest.file_name().expect("a name");
    name.to_string_lossy().into_owned()
}
