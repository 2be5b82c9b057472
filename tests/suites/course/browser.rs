//! The built book in a browser: nothing overflows, no picture is missing, nothing complains, and the
//! search finds. By the WebDriver protocol, spoken to chromedriver.
//!
//! With TEN_STEPS_SHOTS=DIR it leaves a picture of each page there.

use crate::course::book::pages;
use crate::stage::{folder, have, run};
use progress::host::container::in_a_while;
use progress::programs::workspace;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A chromedriver on a port of its own choice, which ends with this.
struct Driver {
    process: Child,
    address: String,
    /// For what a browser leaves behind.
    _scratch: tempfile::TempDir,
}

impl Driver {
    fn start() -> Driver {
        let scratch = folder();
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .env("TMPDIR", scratch.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, port) = line.split_once("started successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        // Somebody has to read what else it says.
        std::thread::spawn(move || lines.for_each(drop));
        let address = format!("http://127.0.0.1:{}", port.unwrap());
        Driver {
            process,
            address,
            _scratch: scratch,
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A browser window of a size.
struct Window<'a> {
    driver: &'a Driver,
    session: String,
}

impl Window<'_> {
    fn open(driver: &Driver, width: u32, height: u32) -> Window<'_> {
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
            "mobileEmulation": {"deviceMetrics": {
                "width": width, "height": height, "pixelRatio": 1, "mobile": width < 800,
            }},
        });
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let answer = post(&format!("{}/session", driver.address), &wanted);
        let session = answer["sessionId"].as_str().unwrap();
        let session = format!("{}/session/{session}", driver.address);
        Window { driver, session }
    }

    fn go(&self, address: &str) {
        post(&format!("{}/url", self.session), &json!({ "url": address }));
    }

    /// What a piece of JavaScript returns.
    fn ask(&self, script: &str) -> Value {
        let script = json!({ "script": script, "args": [] });
        post(&format!("{}/execute/sync", self.session), &script)
    }

    /// What the page has complained of.
    fn complaints(&self) -> Vec<String> {
        let log = post(
            &format!("{}/se/log", self.session),
            &json!({"type": "browser"}),
        );
        let entries = log.as_array().unwrap().iter();
        let severe = entries.filter(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG");
        severe.map(|entry| entry["message"].to_string()).collect()
    }

    fn picture(&self, file: &Path) {
        use std::io::Write;
        let answer = ureq::get(format!("{}/screenshot", self.session))
            .call()
            .unwrap();
        let answer: Value = answer.into_body().read_json().unwrap();
        let mut decode = Command::new("base64")
            .arg("-d")
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(file).unwrap())
            .spawn()
            .unwrap();
        let text = answer["value"].as_str().unwrap();
        decode
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        assert!(decode.wait().unwrap().success());
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        let _ = (self.driver, ureq::delete(&self.session).call());
    }
}

#[track_caller]
fn post(address: &str, body: &Value) -> Value {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let answer = agent.post(address).send_json(body).unwrap();
    let answer: Value = answer.into_body().read_json().unwrap();
    assert!(answer["value"]["error"].is_null(), "{answer}");
    answer["value"].clone()
}

/// What is wider than the page, by the text that it begins with. The page itself hides what sticks
/// out, so each element is measured; what scrolls within its own box may be longer.
const OVERFLOWING: &str = "
    const wide = document.documentElement.clientWidth;
    const all = [...document.querySelectorAll('main *')];
    const out = all.filter(e => e.getBoundingClientRect().right > wide + 1)
        .filter(e => !e.parentElement.closest('pre, table, .table-wrapper'));
    return out.slice(0, 3).map(e => e.tagName + ': ' + (e.alt || e.textContent).slice(0, 40));";

const MISSING_PICTURES: &str = "
    return [...document.images].filter(i => !i.complete || i.naturalWidth === 0).map(i => i.src);";

#[test]
fn the_book_is_whole_in_a_browser() {
    let tools = [
        ("mdbook", "mdbook: cargo install mdbook"),
        ("chromedriver", "chromium-driver"),
    ];
    if !tools.iter().all(|(tool, package)| have(tool, package)) {
        return;
    }
    let book = folder();
    run(Command::new("mdbook")
        .arg("build")
        .arg("--dest-dir")
        .arg(book.path())
        .arg(workspace().join("book"))
        .stderr(Stdio::null()));
    let address = |page: &str| format!("file://{}/{page}", book.path().display());
    let driver = Driver::start();
    let mut wrong = Vec::new();
    for (width, height) in [(1280, 900), (390, 844)] {
        let window = Window::open(&driver, width, height);
        window.go(&address("index.html"));
        for theme in ["light", "navy"] {
            window.ask(&format!("localStorage.setItem('mdbook-theme', '{theme}')"));
            for page in pages() {
                let page = page.replace(".md", ".html");
                window.go(&address(&page));
                let place = format!("{page} at {width} in {theme}");
                let shown = window.ask("return document.documentElement.classList.contains(localStorage.getItem('mdbook-theme'))");
                assert_eq!(shown, true, "{place}: the theme");
                for script in [OVERFLOWING, MISSING_PICTURES] {
                    let found = window.ask(script);
                    if found.as_array().is_none_or(|found| !found.is_empty()) {
                        wrong.push(format!("{place}: {found}"));
                    }
                }
                if let Some(folder) = std::env::var_os("TEN_STEPS_SHOTS") {
                    let name = format!("{width}-{theme}-{page}.png");
                    window.picture(&Path::new(&folder).join(name));
                }
                wrong.extend(
                    window
                        .complaints()
                        .into_iter()
                        .map(|said| format!("{place}: {said}")),
                );
            }
        }
        // As a reader does it: a word in the box, and a list of pages.
        window.go(&format!("{}?search=pivot_root", address("index.html")));
        let found = in_a_while(|| {
            let links = "return [...document.querySelectorAll('#mdbook-searchresults a, #searchresults a')].map(a => a.href)";
            let links = window.ask(links).to_string();
            links.contains("04-pivot-root").then_some(links)
        });
        assert!(
            found.is_some(),
            "the search doesn't find pivot_root at {width}"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
