//! The ways in which readers ask: a search, a document, rows of the cache. Each goes through the gateway
//! by the view's name and knows nothing of versions.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use materializer_model::{VersionId, VersionNumber};
use materializer_sinks::tantivy::search::SearchResponse;
use ureq::Agent;

use super::oracle::Document;
use super::resp::{Reply, RespClient};
use super::shop::{self, Dice};

/// How many hits a search returns.
const HITS: usize = 20;
/// How many rows are asked for in one command.
const ROWS: usize = 16;
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What came back.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// The version that the answer names, if it names one.
    pub(super) version: Option<VersionNumber>,
    /// Its alias epoch, if it names one.
    pub(super) epoch: Option<u64>,
    /// What was found of each product that was asked for.
    pub(super) documents: Vec<(usize, Option<Document>)>,
}

/// A way to ask.
pub(super) trait Ask: Send {
    /// Asks something and returns the answer, under `epoch` or a later one where that can be said.
    fn ask(&mut self, dice: &mut Dice, products: usize, epoch: u64) -> anyhow::Result<Answer>;
}

pub(super) fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(ANSWER_WITHIN))
        .proxy(None)
        .build();
    config.into()
}

type Response = ureq::http::Response<ureq::Body>;

/// Reads the version and epoch that an answer names.
fn answered_by(response: &Response) -> anyhow::Result<Answer> {
    let header = |name| {
        let value = response
            .headers()
            .get(name)
            .with_context(|| format!("no header `{name}`"))?;
        value.to_str().with_context(|| format!("header `{name}`"))
    };
    let version: VersionId = header("materializer-version")?.parse()?;
    let epoch = header("materializer-alias-epoch")?
        .parse()
        .context("the alias epoch")?;
    Ok(Answer {
        version: Some(version.number),
        epoch: Some(epoch),
        documents: Vec::new(),
    })
}

/// Fails with the body of an answer that is none.
fn refused(mut response: Response) -> anyhow::Error {
    let status = response.status();
    let body = response.body_mut().read_to_string().unwrap_or_default();
    anyhow::anyhow!("status {status}: {body}")
}

/// Searches for a word that some product always has.
pub(super) struct Search {
    agent: Agent,
    url: String,
}

impl Search {
    pub(super) fn new(gateway: SocketAddr) -> Self {
        Self {
            agent: agent(),
            url: format!("http://{gateway}/v1/views/product-search/search"),
        }
    }
}

impl Ask for Search {
    fn ask(&mut self, dice: &mut Dice, _: usize, epoch: u64) -> anyhow::Result<Answer> {
        let word = ["shoe", "boots", "sandal", "slippers", "sneaker"][dice.below(5)];
        let url = format!("{}?min_alias_epoch={epoch}", self.url);
        let request = serde_json::json!({"q": format!("title:{word}"), "size": HITS});
        let mut response = self.agent.post(&url).send_json(&request)?;
        if !response.status().is_success() {
            return Err(refused(response));
        }
        let mut answer = answered_by(&response)?;
        let found: SearchResponse = response.body_mut().read_json()?;
        ensure!(!found.hits.is_empty(), "`title:{word}` finds nothing");
        answer.documents = documents(&found)?;
        Ok(answer)
    }
}

/// Reads the documents of a search's hits.
pub(super) fn documents(found: &SearchResponse) -> anyhow::Result<Vec<(usize, Option<Document>)>> {
    let document = |hit: &materializer_sinks::tantivy::search::Hit| {
        let product = hit.key.as_deref().and_then(shop::product);
        let product = product.with_context(|| format!("{:?} is no product's key", hit.key))?;
        let document = serde_json::from_str(hit.source.get()).context("a hit's source")?;
        Ok((product, Some(document)))
    };
    found.hits.iter().map(document).collect()
}

/// Reads one product's document over HTTP.
pub(super) struct Documents {
    agent: Agent,
    url: String,
}

impl Documents {
    pub(super) fn new(gateway: SocketAddr, view: &str) -> Self {
        Self {
            agent: agent(),
            url: format!("http://{gateway}/v1/views/{view}/documents"),
        }
    }
}

impl Ask for Documents {
    fn ask(&mut self, dice: &mut Dice, products: usize, epoch: u64) -> anyhow::Result<Answer> {
        let product = dice.below(products);
        let key = shop::key(product);
        let url = format!("{}/{key}?min_alias_epoch={epoch}", self.url);
        let mut response = self.agent.get(&url).call()?;
        let status = response.status();
        // A missing document names its version, a missing view has none to name.
        if !status.is_success() && (status != 404 || answered_by(&response).is_err()) {
            return Err(refused(response));
        }
        let mut answer = answered_by(&response)?;
        let body = response.body_mut().read_to_vec()?;
        let found = if status.is_success() {
            Some(serde_json::from_slice(&body).context("a document")?)
        } else {
            None
        };
        answer.documents.push((product, found));
        Ok(answer)
    }
}

/// Reads rows of the cache by the Redis protocol.
pub(super) struct CacheRows {
    client: RespClient,
}

impl CacheRows {
    pub(super) fn connect(gateway: SocketAddr) -> anyhow::Result<Self> {
        let client = RespClient::connect(gateway).context("connect to the gateway's Redis port")?;
        Ok(Self { client })
    }

    /// Reads the rows of products with one command.
    pub(super) fn read(
        &mut self,
        products: &[usize],
    ) -> anyhow::Result<Vec<(usize, Option<Document>)>> {
        let keys = products
            .iter()
            .map(|product| format!("product:{}", shop::key(*product)));
        let words: Vec<String> = ["MGET".to_owned()].into_iter().chain(keys).collect();
        let Reply::List(rows) = self.client.ask(&words)? else {
            bail!("MGET was not answered by a list");
        };
        ensure!(
            rows.len() == products.len(),
            "MGET was answered by {} rows",
            rows.len()
        );
        let document = |(product, row): (&usize, Reply)| match row {
            Reply::Nil => Ok((*product, None)),
            Reply::Text(row) => Ok((*product, Some(serde_json::from_slice(&row)?))),
            Reply::Number(_) | Reply::List(_) => bail!("a row is no text"),
        };
        products.iter().zip(rows).map(document).collect()
    }
}

impl Ask for CacheRows {
    fn ask(&mut self, dice: &mut Dice, products: usize, _: u64) -> anyhow::Result<Answer> {
        let asked: Vec<usize> = (0..ROWS).map(|_| dice.below(products)).collect();
        let documents = self.read(&asked)?;
        Ok(Answer {
            documents,
            ..Answer::default()
        })
    }
}
