//! What the command line says.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{Parser, builder::RangedU64ValueParser, value_parser};
use genrec::pipeline::EmbeddingSource;
use support::{DeviceArg, parse_embedder};

/// Serves recommendations of a finished run over HTTP, with a page to try them on.
///
/// `POST /recommend`, `POST /items` and `POST /reload` take and give JSON; `GET /healthz` and `GET /metrics` (Prometheus) are
/// for whoever watches; `GET /` is the page. SIGHUP opens the run anew, SIGTERM and SIGINT answer what was asked and end.
///
/// HTTP/1.1 without TLS and without accounts: anyone who reaches the address may add items unless `--read-only` is given. Put a
/// proxy before it that knows who may. Pages of other sites may not: `POST /items` and `POST /reload` refuse their `Origin`, and
/// `/reload` asks for `content-type: application/json` or the header `x-requested-with`.
#[derive(Debug, Clone, Parser)]
#[command(name = "serve")]
pub(crate) struct Options {
    /// Directory of a finished run.
    #[arg(long)]
    pub(crate) run: PathBuf,
    /// Address and port; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Another name, with the port unless it is the usual one, that people reach the server by, through a proxy for instance; may
    /// repeat. Where it listens on a loopback address only localhost and these may be asked; pages of these may add items.
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,
    /// Where tensors live.
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    pub(crate) device: DeviceArg,
    /// Directory with `sequences.txt` of the run's items: their users are the examples on the page.
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Embeds new items: bert:DIR, sentence-t5:DIR or llm:DIR; it must be the encoder that the run's items were embedded with. By
    /// default the run's own; a run that was made from ready vectors has none.
    #[arg(long, value_parser = parse_text_embedder)]
    pub(crate) embedder: Option<EmbeddingSource>,
    /// Refuses new items and reloads over HTTP; SIGHUP still reloads.
    #[arg(long)]
    pub(crate) read_only: bool,
    #[command(flatten)]
    pub(crate) batching: Batching,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// How requests are put together.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Batching")]
pub(crate) struct Batching {
    /// Histories decoded together, of requests that ask for the same search.
    #[arg(long, default_value = "64")]
    pub(crate) max_batch: NonZeroUsize,
    /// Milliseconds that a request waits for others to share its batch.
    #[arg(long, value_name = "MS", default_value = "5", value_parser = milliseconds)]
    pub(crate) max_wait_ms: Duration,
    /// Histories that may wait to be decoded; beyond it requests are turned away with status 503.
    #[arg(long, default_value = "1024")]
    pub(crate) queue: NonZeroUsize,
    /// Threads that decode batches; each uses all cores, so that more than one helps where batches are small.
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub(crate) workers: usize,
}

/// What a client may ask for.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// Milliseconds after which a request that has not been answered is given up.
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = milliseconds)]
    pub(crate) timeout_ms: Duration,
    /// Milliseconds that a client may take for its headers, for its body, or to accept a part of the answer.
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = milliseconds)]
    pub(crate) client_timeout_ms: Duration,
    /// Milliseconds that requests may take to end when the server is told to stop.
    #[arg(long, value_name = "MS", default_value = "10000", value_parser = milliseconds)]
    pub(crate) drain_ms: Duration,
    /// Connections at once; others wait to be accepted.
    #[arg(long, default_value = "1024", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub(crate) connections: usize,
    /// Bytes of a request's body.
    #[arg(long, default_value = "1048576", value_parser = value_parser!(u32).range(1..))]
    pub(crate) max_body: u32,
    /// Histories in a request; not more than `--queue`.
    #[arg(long, default_value = "64")]
    pub(crate) max_histories: NonZeroUsize,
    /// Items in a history, and ids in a filter's list; of a history the model reads the last ones alone.
    #[arg(long, default_value = "1000")]
    pub(crate) max_items: NonZeroUsize,
    /// Recommendations for a history.
    #[arg(long, default_value = "100")]
    pub(crate) max_k: NonZeroUsize,
}

impl Options {
    /// Checks what single options cannot.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (histories, queue) = (self.limits.max_histories, self.batching.queue);
        if histories > queue {
            return Err(format!(
                "`--max-histories {histories}` is more than `--queue {queue}`: a request that large could never be taken; raise \
                 the one or lower the other"
            ));
        }
        Ok(())
    }
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    let limit = 24 * 60 * 60 * 1000;
    match text.parse() {
        Ok(ms) if ms <= limit => Ok(Duration::from_millis(ms)),
        _ => Err(format!("give a whole number of milliseconds, 0 to {limit}")),
    }
}

fn parse_text_embedder(text: &str) -> Result<EmbeddingSource, String> {
    let refused = || format!("`{text}` has no weights to embed with: give bert:DIR, sentence-t5:DIR or llm:DIR");
    match parse_embedder(text)? {
        source @ EmbeddingSource::Text { .. } if text != "tfidf" => Ok(source),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &[&str]) -> Result<Options, String> {
        let typed = ["serve", "--run", "somewhere"].iter().chain(more);
        let options = Options::try_parse_from(typed).map_err(|error| error.to_string())?;
        options.check().map(|()| options)
    }

    #[test]
    fn options_are_checked() {
        let options = parse(&["--embedder", "bert:model", "--max-wait-ms", "0"]).unwrap();
        assert_eq!(options.batching.max_wait_ms, Duration::ZERO);
        for (wrong, says) in [
            (&["--embedder", "tfidf"][..], "no weights"),
            (&["--embedder", "npy:x"], "no weights"),
            (&["--timeout-ms=-1"], "milliseconds"),
            (&["--max-batch", "0"], "max-batch"),
            (&["--workers", "0"], "workers"),
            (&["--queue", "8"], "could never be taken"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(error.contains(says), "{wrong:?}: {error}");
        }
    }
}
