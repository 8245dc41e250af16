//! Requests to a hub, one at a time.

use std::io::Read;
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
};
use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::cache::is_commit;
use crate::checksum::Checksum;
use crate::{Error, Repo};

/// Redirects that are followed; the Hub needs two at most.
const MOST_REDIRECTS: usize = 10;
/// The largest list of files that is read: that of the released model has 3 kB.
const MOST_LISTING_BYTES: u64 = 16 << 20;
/// How long to wait for a connection, for the beginning of an answer, and for the next bytes of it.
const CONNECTING: Duration = Duration::from_secs(20);
const ANSWERING: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_secs(30);

/// What speaks HTTP to one hub.
pub(crate) struct Client {
    agent: Agent,
    /// The hub's address, without a slash at its end.
    endpoint: String,
    origin: Origin,
    authorization: Option<HeaderValue>,
}

/// What a repository holds at its newest commit.
#[derive(Debug)]
pub(crate) struct Listing {
    pub commit: String,
    pub names: Vec<String>,
}

/// A file of a repository.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub name: String,
    pub size: u64,
    pub checksum: Checksum,
    url: String,
}

/// The answer to a request for a part of a file.
pub(crate) enum Part {
    /// Its bytes, and perhaps more behind them.
    Bytes(Box<dyn Read>),
    /// The server gives whole files only.
    WholeOnly,
}

impl Client {
    pub(crate) fn new(endpoint: &str, token: Option<&str>) -> Result<Self, Error> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let uri = endpoint.parse().ok();
        let Some(origin) = uri.as_ref().and_then(Origin::of) else { return Err(Error::Endpoint { endpoint }) };
        let authorization = token.map(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| Error::Token)?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self { agent: agent(RootCerts::WebPki), endpoint, origin, authorization: authorization.transpose()? })
    }

    /// Believes these authorities instead of those that Mozilla's browsers believe.
    pub(crate) fn trust(&mut self, pem: &[u8]) -> Result<(), Error> {
        let items: Vec<PemItem> = parse_pem(pem).collect::<Result<_, _>>().map_err(|_| Error::Certificates)?;
        let certificates = items.into_iter().filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        });
        let certificates: Vec<Certificate> = certificates.collect();
        if certificates.is_empty() {
            return Err(Error::Certificates);
        }
        self.agent = agent(RootCerts::new_with_certs(&certificates));
        Ok(())
    }

    /// The names of a repository's files; those in folders are left out.
    pub(crate) fn list(&self, repo: &Repo) -> Result<Listing, Error> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let url = format!("{}/api/models/{repo}/revision/main", self.endpoint);
        let answer = self.ask(Method::Get, &url, None)?;
        let host = answer.origin.host.clone();
        let response = self.successful(repo, None, answer)?;
        let not_a_hub = |what: &str| Error::NotAHub { host: host.clone(), what: what.to_owned() };
        let json = response.into_body().into_with_config().limit(MOST_LISTING_BYTES).read_to_vec();
        let json = json.map_err(|e| match e {
            ureq::Error::BodyExceedsLimit(_) => not_a_hub("its list of files has no end"),
            source => network(&host, source),
        })?;
        let listing: Answer =
            serde_json::from_slice(&json).map_err(|_| not_a_hub("its list of files is not such a list"))?;
        if !is_commit(&listing.sha) {
            return Err(not_a_hub("its list of files names no commit"));
        }
        let names = listing.siblings.into_iter().map(|file| file.rfilename);
        Ok(Listing { commit: listing.sha, names: names.filter(|name| is_plain(name)).collect() })
    }

    /// What the hub says of a file at a commit. Of one that is elsewhere, it says it itself, in headers of its own.
    pub(crate) fn describe(&self, repo: &Repo, commit: &str, name: &str) -> Result<Remote, Error> {
        let url = format!("{}/{repo}/resolve/{commit}/{name}", self.endpoint);
        let answer = self.ask(Method::Head, &url, None)?;
        let host = answer.origin.host.clone();
        let is_redirect = answer.response.status().is_redirection();
        let response = if is_redirect { answer.response } else { self.successful(repo, Some(name), answer)? };
        let header = |name: &str| text(response.headers(), name);
        let missing =
            |what: &str| Error::NotAHub { host: host.clone(), what: format!("it does not tell the {what} of {name}") };
        // Of a redirect, length and ETag are those of the redirect.
        let own = |name: &str| if is_redirect { None } else { header(name) };
        let size = header("x-linked-size").or_else(|| own(CONTENT_LENGTH.as_str())).and_then(|size| size.parse().ok());
        let checksum = header("x-linked-etag").or_else(|| own(ETAG.as_str())).and_then(Checksum::of_etag);
        Ok(Remote {
            name: name.to_owned(),
            size: size.ok_or_else(|| missing("size"))?,
            checksum: checksum.ok_or_else(|| missing("checksum"))?,
            url,
        })
    }

    /// A part of a file, or all of it.
    pub(crate) fn part(&self, repo: &Repo, file: &Remote, range: Range<u64>) -> Result<Part, Error> {
        let bytes = format!("bytes={}-{}", range.start, range.end - 1);
        let answer = self.ask(Method::Get, &file.url, Some(&bytes))?;
        let host = answer.origin.host.clone();
        let wrong = |sent: &str| Error::Length {
            name: file.name.clone(),
            host: host.clone(),
            promised: file.size,
            sent: sent.to_owned(),
        };
        if answer.response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(wrong("it has nothing there"));
        }
        let response = self.successful(repo, Some(&file.name), answer)?;
        let headers = response.headers();
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let sent = text(headers, CONTENT_RANGE.as_str()).unwrap_or_default();
            let right = sent.strip_prefix(&format!("bytes {}-{}/", range.start, range.end - 1));
            if !right.is_some_and(|total| total == "*" || total == file.size.to_string()) {
                return Err(wrong(sent));
            }
        } else if range != (0..file.size) {
            return Ok(Part::WholeOnly);
        } else if let Some(sent) = text(headers, CONTENT_LENGTH.as_str()).filter(|sent| *sent != file.size.to_string())
        {
            return Err(wrong(sent));
        }
        Ok(Part::Bytes(Box::new(response.into_body().into_reader())))
    }

    /// An answer, redirects followed: of a HEAD only those within the hub, for what other hosts say of a file does not count.
    fn ask(&self, method: Method, url: &str, range: Option<&str>) -> Result<Answer, Error> {
        let mut url = url.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let uri: Option<Uri> = url.parse().ok();
            let origin = uri.as_ref().and_then(Origin::of);
            let (Some(uri), Some(origin)) = (uri, origin) else { break };
            let mut request = match method {
                Method::Get => self.agent.get(&url),
                Method::Head => self.agent.head(&url),
            };
            if let Some(authorization) = self.authorization.as_ref().filter(|_| origin == self.origin) {
                request = request.header(AUTHORIZATION, authorization);
            }
            if let Some(range) = range {
                request = request.header(RANGE, range);
            }
            let response = request.call().map_err(|source| network(&origin.host, source))?;
            let next =
                response.status().is_redirection().then(|| text(response.headers(), LOCATION.as_str())).flatten();
            match next.and_then(|location| resolved(location, &uri)) {
                None => return Ok(Answer { origin, response }),
                Some(next) => {
                    let is_here = next.parse().ok().as_ref().and_then(Origin::of).as_ref() == Some(&origin);
                    if !is_here && matches!(method, Method::Head) {
                        return Ok(Answer { origin, response });
                    }
                    url = next;
                }
            }
        }
        Err(Error::NotAHub { host: self.origin.host.clone(), what: "its redirects lead nowhere".to_owned() })
    }

    /// What an answer without success means.
    fn successful(&self, repo: &Repo, file: Option<&str>, answer: Answer) -> Result<Response<Body>, Error> {
        let Answer { origin, response } = answer;
        // Only the hub itself knows whether there is a model, and who may have it.
        let is_hub = origin == self.origin;
        let (repo, endpoint, host) = (repo.clone(), self.endpoint.clone(), origin.host);
        let code = text(response.headers(), "x-error-code").unwrap_or_default();
        Err(match (response.status().as_u16(), code, file) {
            (200 | 206, ..) => return Ok(response),
            (status @ (429 | 503), ..) => Error::Busy { host, status, wait: asked_to_wait(response.headers()) },
            (status, ..) if !is_hub => Error::Status { host, status },
            (_, "GatedRepo", _) | (403, ..) => Error::Refused { repo, endpoint },
            (401, ..) if self.authorization.is_some() && code != "RepoNotFound" => Error::BadToken { repo, endpoint },
            (401, ..) | (404, _, None) | (404, "RepoNotFound", _) => Error::NoSuchModel { repo, endpoint },
            (404, _, Some(name)) => Error::NoSuchFile { repo, name: name.to_owned() },
            (status, ..) => Error::Status { host, status },
        })
    }
}

fn agent(root_certs: RootCerts) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        // Each is looked at here: what the first answer says counts, and the token must not go to another host.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECTING))
        .timeout_recv_response(Some(ANSWERING))
        .timeout_per_read(Some(SILENCE))
        .user_agent(concat!("voxtral/", env!("CARGO_PKG_VERSION")))
        // Sizes and checksums are of the plain bytes.
        .accept_encoding("identity")
        .tls_config(TlsConfig::builder().root_certs(root_certs).build());
    config.build().into()
}

#[derive(Clone, Copy)]
enum Method {
    Get,
    Head,
}

struct Answer {
    origin: Origin,
    response: Response<Body>,
}

/// Where an address leads: a token for one is for no other.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    is_https: bool,
    host: String,
    port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let is_https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        Some(Self { is_https, host: uri.host()?.to_ascii_lowercase(), port })
    }
}

/// The address that a redirect from `base` leads to.
fn resolved(location: &str, base: &Uri) -> Option<String> {
    let scheme = base.scheme_str()?;
    if location.starts_with("//") {
        Some(format!("{scheme}:{location}"))
    } else if location.starts_with('/') {
        Some(format!("{scheme}://{}{location}", base.authority()?))
    } else {
        Some(location.to_owned())
    }
}

/// Whether it is a name for a file, and nothing else, on every system.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':'])
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What an answer asks to wait: in seconds by `Retry-After`, or by `RateLimit` when nothing remains, as in `"api";r=0;t=55`.
fn asked_to_wait(headers: &HeaderMap) -> Option<Duration> {
    let limit = text(headers, "ratelimit").filter(|limit| limit.split(';').any(|part| part.trim() == "r=0"));
    let reset = limit.and_then(|limit| limit.split(';').find_map(|part| part.trim().strip_prefix("t=")));
    text(headers, RETRY_AFTER.as_str()).or(reset)?.trim().parse().ok().map(Duration::from_secs)
}

fn network(host: &str, source: ureq::Error) -> Error {
    Error::Network { host: host.to_owned(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_read_as_browsers_read_them() {
        let base = "https://a.example:8443/x/y?z".parse().unwrap();
        let to = |location| resolved(location, &base).unwrap();
        assert_eq!(to("/n"), "https://a.example:8443/n");
        assert_eq!(to("//b.example/n"), "https://b.example/n");
        assert_eq!(to("http://c.example/n?q=1"), "http://c.example/n?q=1");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let of = |url: &str| Origin::of(&url.parse().unwrap());
        assert_eq!(of("https://A.example/x"), of("https://a.example:443"));
        for other in ["http://a.example", "https://a.example:444", "https://a.example.org", "https://b.a.example"] {
            assert_ne!(of(other), of("https://a.example"), "{other}");
        }
        assert_eq!(of("ftp://a.example/"), None);
    }

    #[test]
    fn what_a_server_asks_to_wait_is_read_from_both_headers() {
        let wait = |name: &'static str, value: &'static str| {
            asked_to_wait(&[(name, value)].map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).into_iter().collect())
        };
        assert_eq!(wait("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("ratelimit", "\"api\";r=0;t=55"), Some(Duration::from_secs(55)));
        assert_eq!(wait("ratelimit", "\"api\";r=3;t=55"), None);
        assert_eq!(wait("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), None);
    }
}
