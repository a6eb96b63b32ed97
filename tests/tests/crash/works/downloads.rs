//! Files come from a Hub into its cache.

use std::{path::Path, time::Duration};

use genrec::embed::hub::HubDownload;

use super::{BoxError, Work};

#[allow(dead_code, reason = "the crate of the downloads uses all of it")]
#[path = "../../../../crates/genrec-embed/tests/hub/server.rs"]
mod server;

pub(crate) const DOWNLOADS: Work = Work::new("downloads", download, is_done);

/// Name, bytes and whether it is in the large file storage.
fn files() -> [(&'static str, Vec<u8>, bool); 3] {
    let large = (0..300_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    [("config.json", b"{}".to_vec(), false), ("model.safetensors", large, true), ("a/b.json", b"[1]".to_vec(), false)]
}

fn download(root: &Path) -> Result<(), BoxError> {
    let hub = server::Hub::start();
    for (name, bytes, large) in files() {
        hub.add(name, bytes, large);
    }
    let download = HubDownload::new(server::MODEL).with_endpoint(&hub.address).with_cache_dir(root);
    download.with_retries(1, Duration::ZERO).download_files(&["config.json"], |_| true)?;
    Ok(())
}

/// Whatever has its name has its content.
fn is_done(root: &Path) -> bool {
    let there = root.join("models--some--model/snapshots").join(server::COMMIT);
    let is_there = |(name, bytes, _): (&str, Vec<u8>, bool)| match std::fs::read(there.join(name)) {
        Ok(found) => {
            assert!(found == bytes, "{name}");
            true
        }
        Err(_) => false,
    };
    files().map(is_there).iter().all(|there| *there)
}
