//! Downloads from a hub on this machine that behaves, or does not.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::{Answer, COMMIT, REPO, Repository, Request, Server, noise};
use tempfile::TempDir;
use voxtral_hub::{Cache, Error, Event, Hub, Repo};

/// Enough for several chunks, the last of them not whole.
const LARGE: usize = (5 << 20) + 12_345;

fn repository() -> Repository {
    Repository::default().with("params.json", "{}").with("README.md", "read me").with_large("weights", noise(LARGE))
}

/// A hub and its store of large files on another host, each answering as `hub` and `store` make of the right answer.
struct Site {
    hub: Server,
    store: Server,
    cache: TempDir,
    links: bool,
}

type Twist = Box<dyn Fn(&Request, Answer) -> Answer + Send + Sync>;

fn as_it_is() -> Twist {
    Box::new(|_, answer| answer)
}

impl Site {
    fn new() -> Self {
        Self::twisted(as_it_is(), as_it_is())
    }

    fn twisted(hub: Twist, store: Twist) -> Self {
        let files = repository();
        let store = Server::start(move |request| store(request, files.stored(request)));
        let files = Repository { store: Some(store.by_name()), ..repository() };
        let hub = Server::start(move |request| hub(request, files.answer(request)));
        Self { hub, store, cache: tempfile::tempdir().unwrap(), links: true }
    }

    fn cache(&self) -> Cache {
        let cache = Cache::new(self.cache.path());
        if self.links { cache } else { cache.without_links() }
    }

    fn download_with(&self, token: Option<&str>, tell: &mut dyn FnMut(Event)) -> Result<PathBuf, Error> {
        let hub = Hub::new(&self.hub.url(), token, self.cache())?.with_first_wait(Duration::from_millis(1));
        hub.download(&repo(), &|names| names.iter().filter(|name| *name != "README.md").cloned().collect(), tell)
    }

    fn download(&self) -> Result<PathBuf, Error> {
        self.download_with(None, &mut |_| {})
    }

    #[track_caller]
    fn arrives(&self) {
        let folder = self.download().unwrap();
        assert!(fs::read(folder.join("weights")).unwrap() == noise(LARGE), "other bytes");
        assert_eq!(fs::read_to_string(folder.join("params.json")).unwrap(), "{}");
        assert_eq!(self.unfinished(), 0);
    }

    /// Files that are not whole.
    fn unfinished(&self) -> usize {
        let Ok(blobs) = fs::read_dir(self.model().join("blobs")) else { return 0 };
        blobs.filter(|blob| blob.as_ref().unwrap().path().extension().is_some()).count()
    }

    fn model(&self) -> PathBuf {
        self.cache.path().join("models--mistralai--Voxtral-Mini-4B-Realtime-2602")
    }
}

fn repo() -> Repo {
    Repo::parse(REPO).unwrap()
}

/// Whether it is about bytes of a large file, the hub's redirect among them.
fn is_for_weights(request: &Request) -> bool {
    request.is_get() && request.path.ends_with("/weights")
}

/// Counts from 0.
fn counter() -> impl Fn() -> usize + Send + Sync + 'static {
    let count = AtomicUsize::new(0);
    move || count.fetch_add(1, Ordering::Relaxed)
}

/// Whether the system made links of what was just downloaded; where it did not, that is told.
fn makes_links(folder: &Path) -> bool {
    let makes_links = !cfg!(windows) || folder.join("weights").is_symlink();
    if !makes_links {
        eprintln!("skipped: links, which this Windows does not make");
    }
    makes_links
}

#[test]
fn the_cache_is_laid_out_as_hugging_face_does_it() {
    let site = Site::new();
    let folder = site.download().unwrap();
    assert_eq!(folder, site.model().join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(site.model().join("refs/main")).unwrap(), COMMIT);
    assert_eq!(site.cache().snapshot(&repo()), Some(folder.clone()));
    let blobs = [
        ("params.json", "9e26dfeeb6e641a33dae4961196235bdb965b21b".to_owned()), // git hash-object
        ("weights", repository().large["weights"].clone()),
    ];
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "README.md was not chosen");
    if !makes_links(&folder) {
        return;
    }
    for (name, blob) in &blobs {
        assert_eq!(fs::read_link(folder.join(name)).unwrap(), Path::new("../../blobs").join(blob));
        assert!(site.model().join("blobs").join(blob).is_file(), "{name}");
    }
    assert_eq!(fs::read_dir(site.model().join("blobs")).unwrap().count(), 2);
}

#[test]
fn large_files_come_in_several_parts_and_what_is_there_does_not_come_again() {
    let site = Site::new();
    site.arrives();
    let ranges: Vec<_> = site.store.requests().iter().filter_map(Request::range).collect();
    assert_eq!(ranges.len(), 6, "{ranges:?}");
    assert_eq!(site.store.take_sent(), LARGE as u64);
    let mut events = Vec::new();
    site.download_with(None, &mut |event| events.push(event)).unwrap();
    assert_eq!(site.store.take_sent(), 0);
    let size = LARGE as u64;
    let there = |name: &str, size| Event::File { name: name.to_owned(), size, have: size };
    assert_eq!(events, [there("params.json", 2), there("weights", size)]);
}

#[test]
fn a_token_goes_to_the_hub_and_nowhere_else() {
    let site = Site::new();
    site.download_with(Some("hf_secret"), &mut |_| {}).unwrap();
    assert!(site.hub.requests().iter().all(|request| request.authorization() == Some("Bearer hf_secret")));
    let elsewhere = site.store.requests();
    assert!(!elsewhere.is_empty() && !format!("{elsewhere:?}").contains("hf_secret"), "{elsewhere:?}");
}

#[test]
fn another_port_is_another_host() {
    let elsewhere = Server::start(|_| Answer::status(404));
    let url = elsewhere.url();
    let site =
        Site::twisted(Box::new(move |_, _| Answer::status(302).with("Location", format!("{url}/x"))), as_it_is());
    site.download_with(Some("hf_secret"), &mut |_| {}).unwrap_err();
    let requests = elsewhere.requests();
    assert!(!requests.is_empty() && requests.iter().all(|request| request.authorization().is_none()), "{requests:?}");
}

#[test]
fn a_model_that_was_renamed_is_found_where_the_hub_says_with_the_token() {
    let moved = |request: &Request, answer: Answer| match request.path.strip_prefix("/new") {
        Some(_) => repository().answer(&Request { path: request.path.replace("/new", ""), ..request.clone() }),
        None if request.path.ends_with("params.json") => {
            Answer::status(307).with("Location", format!("/new{}", request.path))
        }
        None => answer,
    };
    let site = Site::twisted(Box::new(moved), as_it_is());
    site.download_with(Some("hf_secret"), &mut |_| {}).unwrap();
    let new: Vec<_> = site.hub.requests().into_iter().filter(|request| request.path.starts_with("/new")).collect();
    assert_eq!(new.len(), 2, "{new:?}");
    assert!(new.iter().all(|request| request.authorization().is_some()), "{new:?}");
}

#[test]
fn connections_that_break_off_are_taken_up_where_they_broke() {
    let breaks = |_: &Request, answer: Answer| Answer { breaks_after: Some(300_000), ..answer };
    let site = Site::twisted(as_it_is(), Box::new(breaks));
    site.arrives();
    assert_eq!(site.store.take_sent(), LARGE as u64);
}

#[test]
fn an_answer_that_is_shorter_than_it_claims_is_taken_up_too() {
    let lies = |_: &Request, answer: Answer| Answer { claimed: Some(answer.body.len() * 2), ..answer };
    Site::twisted(as_it_is(), Box::new(lies)).arrives();
    let lies = |_: &Request, answer: Answer| Answer { claimed: Some(answer.body.len().div_ceil(2)), ..answer };
    Site::twisted(as_it_is(), Box::new(lies)).arrives();
}

#[test]
fn connections_without_a_byte_are_tried_some_times() {
    let site = Site::twisted(as_it_is(), Box::new(|_, answer| Answer { breaks_after: Some(0), ..answer }));
    let mut waits = 0;
    let error = site.download_with(None, &mut |event| waits += usize::from(matches!(event, Event::Waiting { .. })));
    let error = error.unwrap_err();
    assert!(matches!(&error, Error::BrokeOff { done: 0, .. }), "{error}");
    assert!(waits >= 4, "{waits}");
}

#[test]
fn sizes_that_contradict_each_other_are_refused() {
    for says in [LARGE - 1, LARGE + 1, 2 * LARGE] {
        let lies = move |_: &Request, mut answer: Answer| {
            answer
                .headers
                .iter_mut()
                .filter(|(name, _)| name == "X-Linked-Size")
                .for_each(|(_, size)| *size = says.to_string());
            answer
        };
        let site = Site::twisted(Box::new(lies), as_it_is());
        let error = site.download().unwrap_err();
        assert!(matches!(&error, Error::Length { promised, .. } if *promised == says as u64), "{says}: {error}");
        assert!(!site.model().join("snapshots").join(COMMIT).join("weights").exists());
    }
}

#[test]
fn damaged_bytes_are_told_and_deleted_and_come_again() {
    let times = counter();
    let damages = move |_: &Request, mut answer: Answer| {
        if times() == 0 {
            answer.body[1000] ^= 1;
        }
        answer
    };
    let site = Site::twisted(as_it_is(), Box::new(damages));
    let error = site.download().unwrap_err();
    let sha256 = &repository().large["weights"];
    assert!(
        matches!(&error, Error::Corrupt { name, promised, .. } if name == "weights" && promised == sha256),
        "{error}"
    );
    assert_eq!(site.unfinished(), 0);
    assert!(!site.model().join("blobs").join(sha256).exists() && site.cache().snapshot(&repo()).is_none());
    site.arrives();
}

#[test]
fn a_small_file_is_held_to_its_git_checksum() {
    let damages = |request: &Request, answer: Answer| {
        let damaged = request.is_get() && request.path.ends_with("params.json");
        if damaged { answer.with_body("[]") } else { answer }
    };
    let error = Site::twisted(Box::new(damages), as_it_is()).download().unwrap_err();
    assert!(matches!(&error, Error::Corrupt { name, .. } if name == "params.json"), "{error}");
}

#[test]
fn a_server_without_parts_gives_the_whole_file() {
    let files = repository();
    let times = counter();
    let whole = move |request: &Request, _: Answer| {
        let answer = files.stored(&Request { headers: Default::default(), ..request.clone() });
        // The first of those that are read to their end breaks off once.
        Answer { breaks_after: (times() == 7).then_some(2_000_000), ..answer }
    };
    let site = Site::twisted(as_it_is(), Box::new(whole));
    site.arrives();
}

#[test]
fn what_came_before_an_error_does_not_come_again() {
    let times = counter();
    let fails = move |request: &Request, answer: Answer| {
        let is_late = request.range().is_some_and(|(first, _)| first >= 4 << 20);
        if is_late && times() < 2 {
            thread::sleep(Duration::from_millis(300)); // for the others to come
            return Answer::status(404);
        }
        answer
    };
    let site = Site::twisted(as_it_is(), Box::new(fails));
    let error = site.download().unwrap_err();
    assert!(matches!(error, Error::Status { status: 404, .. }), "{error}");
    let before = site.store.take_sent();
    assert!(before > 0 && site.unfinished() == 1, "{before}");
    let mut have = 0;
    let mut begun = |event| {
        if let Event::File { name, have: there, .. } = event
            && name == "weights"
        {
            have = there;
        }
    };
    site.download_with(None, &mut begun).unwrap();
    assert!(have > 0 && site.store.take_sent() == LARGE as u64 - have, "{have}");
    site.arrives();
}

#[test]
fn an_unfinished_file_that_was_damaged_is_found_out() {
    let site = Site::new();
    let blob = site.model().join("blobs").join(&repository().large["weights"]);
    let unfinished = |counters: &[u64]| {
        fs::create_dir_all(blob.parent().unwrap()).unwrap();
        let zeros = vec![0; LARGE].into_iter().chain(counters.iter().flat_map(|count| count.to_le_bytes()));
        fs::write(blob.with_extension("voxtral.incomplete"), zeros.collect::<Vec<u8>>()).unwrap();
    };
    for counters in [&[][..], &[0; 5], &[u64::MAX; 6], &[1 << 20; 6]] {
        unfinished(counters);
        site.arrives();
        assert_eq!(site.store.take_sent(), LARGE as u64, "{counters:?}");
        fs::remove_dir_all(site.model()).unwrap();
    }
    // What it counts may be there is not: only the checksum can tell.
    unfinished(&[1 << 20, 0, 0, 0, 0, 0]);
    assert!(matches!(site.download().unwrap_err(), Error::Corrupt { .. }));
    site.arrives();
}

/// What comes of a hub that answers every request for `what` with a status.
fn answered(what: fn(&Request) -> bool, token: Option<&str>, answer: Answer) -> Error {
    let twist = move |request: &Request, right: Answer| if what(request) { answer.clone() } else { right };
    Site::twisted(Box::new(twist), as_it_is()).download_with(token, &mut |_| {}).unwrap_err()
}

#[test]
fn refusals_are_told_apart() {
    let listing = |request: &Request| request.path.contains("/api/");
    let file = |request: &Request| request.path.ends_with("/weights");
    let status = Answer::status;
    let gated = || Answer::status(401).with("X-Error-Code", "GatedRepo");
    let hidden = || Answer::status(401).with("X-Error-Code", "RepoNotFound");
    let some = Some("hf_x");
    assert!(matches!(answered(listing, None, status(404)), Error::NoSuchModel { .. }));
    assert!(matches!(answered(listing, None, status(401)), Error::NoSuchModel { .. }));
    assert!(matches!(answered(listing, some, hidden()), Error::NoSuchModel { .. }));
    assert!(matches!(answered(listing, some, status(401)), Error::BadToken { .. }));
    assert!(matches!(answered(file, some, status(403)), Error::Refused { .. }));
    assert!(matches!(answered(file, None, gated()), Error::Refused { .. }));
    assert!(matches!(answered(file, None, status(404)), Error::NoSuchFile { name, .. } if name == "weights"));
    assert!(matches!(answered(is_for_weights, None, status(410)), Error::Status { status: 410, .. }));
}

#[test]
fn a_store_that_refuses_says_nothing_about_the_model() {
    let error = Site::twisted(as_it_is(), Box::new(|_, _| Answer::status(403))).download().unwrap_err();
    assert!(matches!(&error, Error::Status { status: 403, host } if host == "localhost"), "{error}");
}

#[test]
fn a_server_that_asks_to_wait_is_waited_for() {
    for (name, value) in [("Retry-After", "1"), ("RateLimit", "\"resolvers\";r=0;t=1")] {
        let times = counter();
        let busy = move |_: &Request, answer: Answer| match times() {
            0 => Answer::status(429).with(name, value),
            1 => Answer::status(503),
            _ => answer,
        };
        let site = Site::twisted(Box::new(busy), as_it_is());
        let mut waits = Vec::new();
        let mut note = |event| {
            if let Event::Waiting { wait, .. } = event {
                waits.push(wait);
            }
        };
        site.download_with(None, &mut note).unwrap();
        assert_eq!(waits[0], Duration::from_secs(1), "{name}");
    }
}

#[test]
fn a_server_that_stays_busy_is_left_alone() {
    let listing = |request: &Request| request.path.contains("/api/");
    let error = answered(listing, None, Answer::status(429));
    assert!(matches!(error, Error::Busy { status: 429, .. }), "{error}");
    let error = answered(listing, None, Answer::status(429).with("Retry-After", "3600"));
    assert!(error.to_string().contains("try again in 3600 s"), "{error}");
    let error = answered(is_for_weights, None, Answer::status(429).with("Retry-After", "3600"));
    assert!(error.to_string().contains("try again in 3600 s"), "{error}");
}

#[test]
fn what_is_no_hub_is_called_so() {
    let page = Answer::status(200).with_body("<html>log in to the network</html>");
    let loops = Answer::status(302).with("Location", "/again");
    let away = Answer::status(302).with("Location", "http://localhost:1/file");
    for (label, answer) in [("page", page), ("loop", loops), ("away", away)] {
        let error = answered(|request| request.path.ends_with("/weights") || request.path == "/again", None, answer);
        assert!(matches!(error, Error::NotAHub { .. }), "{label}: {error}");
    }
    let error = answered(|request| request.path.contains("/api/"), None, Answer::status(200).with_body("<html>"));
    assert!(matches!(error, Error::NotAHub { .. }), "{error}");
}

#[test]
fn a_hub_that_is_not_there_is_told() {
    let site = Site::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hub = Hub::new(&format!("http://{nobody}"), None, site.cache()).unwrap();
    let hub = hub.with_first_wait(Duration::from_millis(1));
    let error = hub.download(&repo(), &|names| names.to_vec(), &mut |_| {}).unwrap_err();
    assert!(matches!(&error, Error::Network { host, .. } if host == "127.0.0.1"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    for endpoint in ["", "huggingface.co", "ftp://a.example", "/x"] {
        assert!(matches!(Hub::new(endpoint, None, site.cache()), Err(Error::Endpoint { .. })), "{endpoint}");
    }
    assert!(matches!(hub.with_certificates(b"no certificate"), Err(Error::Certificates)));
    assert!(matches!(Hub::new("http://a.example", Some("a\nb"), site.cache()), Err(Error::Token)));
}

#[test]
fn two_downloads_at_a_time_fetch_everything_once() {
    let slow = |_: &Request, answer: Answer| Answer { pace: Duration::from_millis(20), ..answer };
    for links in [true, false] {
        let site = Arc::new(Site { links, ..Site::twisted(as_it_is(), Box::new(slow)) });
        let start = |site: &Arc<Site>| {
            let site = Arc::clone(site);
            thread::spawn(move || {
                let mut locked = false;
                site.download_with(None, &mut |event| locked |= event == Event::Locked).unwrap();
                locked
            })
        };
        let waited: Vec<bool> = [start(&site), start(&site)].map(|running| running.join().unwrap()).into();
        assert!(waited.contains(&true), "neither waited for the other");
        assert_eq!(site.store.take_sent(), LARGE as u64, "links: {links}");
        site.arrives();
    }
}

#[test]
fn what_will_not_fit_is_not_begun() {
    let huge = |_: &Request, mut answer: Answer| {
        answer
            .headers
            .iter_mut()
            .filter(|(name, _)| name == "X-Linked-Size")
            .for_each(|(_, size)| *size = (1_u64 << 60).to_string());
        answer
    };
    let site = Site::twisted(Box::new(huge), as_it_is());
    let error = site.download().unwrap_err();
    assert!(matches!(&error, Error::NoRoom { needed, free, .. } if needed > free), "{error}");
    assert!(site.store.requests().is_empty());
}

#[test]
fn where_there_are_no_links_the_files_themselves_are_in_place() {
    let site = Site::new();
    let hub = Hub::new(&site.hub.url(), None, site.cache().without_links()).unwrap();
    let folder = hub.download(&repo(), &|_| vec!["weights".to_owned()], &mut |_| {}).unwrap();
    let weights = folder.join("weights");
    assert!(fs::symlink_metadata(&weights).unwrap().is_file() && fs::read(&weights).unwrap() == noise(LARGE));
    assert_eq!(fs::read_dir(site.model().join("blobs")).unwrap().count(), 0, "it would be there twice");
    site.store.take_sent();
    hub.download(&repo(), &|_| vec!["weights".to_owned()], &mut |_| {}).unwrap();
    assert_eq!(site.store.take_sent(), 0);
    // A blob that other snapshots may use stays.
    site.download().unwrap();
    fs::remove_file(&weights).unwrap();
    site.download().unwrap();
    if !makes_links(&folder) {
        return;
    }
    fs::remove_file(&weights).unwrap();
    hub.download(&repo(), &|_| vec!["weights".to_owned()], &mut |_| {}).unwrap();
    assert!(fs::symlink_metadata(&weights).unwrap().is_file());
    assert!(site.model().join("blobs").join(&repository().large["weights"]).is_file());
}

#[test]
fn a_repository_without_a_model_is_told() {
    let site = Site::new();
    let hub = Hub::new(&site.hub.url(), None, site.cache()).unwrap();
    let error = hub.download(&repo(), &|_| vec![], &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("README.md, params.json, weights"), "{error}");
}

#[test]
fn names_that_leave_the_folder_are_not_offered() {
    let json = format!(
        r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"../x"}},{{"rfilename":"a/b"}},{{"rfilename":"c"}}]}}"#
    );
    let server = Server::start(move |_| Answer::status(200).with_body(json.clone()));
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(&server.url(), None, Cache::new(cache.path())).unwrap();
    let offered = std::cell::RefCell::default();
    let choose = |names: &[String]| {
        *offered.borrow_mut() = names.to_vec();
        vec![]
    };
    hub.download(&repo(), &choose, &mut |_| {}).unwrap_err();
    assert_eq!(*offered.borrow(), ["c"]);
}
