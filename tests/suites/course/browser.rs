//! The built book in a browser: nothing overflows, no picture is missing, nothing complains, and the
//! search finds; drawings and consoles are legible in each theme and on paper. By the WebDriver
//! protocol, spoken to chromedriver.
//!
//! With TEN_STEPS_SHOTS=DIR it leaves a picture of each page there.

use crate::course::book::{commands, pages};
use crate::stage::{folder, have, run};
use progress::chapters::CHAPTERS;
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

    /// Asks the browser itself, by the protocol of its developer tools.
    fn tell(&self, command: &str, parameters: &Value) {
        let command = json!({ "cmd": command, "params": parameters });
        post(&format!("{}/goog/cdp/execute", self.session), &command);
    }

    /// A click of the mouse on what a piece of JavaScript returns.
    fn click(&self, script: &str) {
        let element = self.ask(script);
        let id = element.as_object().unwrap().values().next().unwrap();
        let address = format!("{}/element/{}/click", self.session, id.as_str().unwrap());
        post(&address, &json!({}));
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

/// Labels of drawings that run out of the drawing, across the edge of a box, or into another label.
const LABELS: &str = "
    const within = (a, b) => a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom;
    const apart = (a, b) => a.left >= b.right || a.right <= b.left || a.top >= b.bottom || a.bottom <= b.top;
    // A line of text is higher than its letters.
    const letters = text => {
        const box = text.getBoundingClientRect(), spare = box.height / 4;
        return { left: box.left, right: box.right, top: box.top + spare, bottom: box.bottom - spare, text };
    };
    const wrong = [];
    for (const svg of document.querySelectorAll('svg.drawing')) {
        const labels = [...svg.querySelectorAll('text')].map(letters);
        const boxes = [...svg.querySelectorAll('rect')].map(rect => rect.getBoundingClientRect());
        labels.forEach((label, at) => {
            // What lies below the box that it stands in is covered.
            const own = boxes.findLastIndex(box => within(label, box));
            const fits = within(label, svg.getBoundingClientRect())
                && boxes.slice(own + 1).every(box => apart(label, box))
                && labels.slice(at + 1).every(other => apart(label, other));
            if (!fits) wrong.push('a label that does not fit: ' + label.text.textContent);
        });
    }
    return wrong;";

/// Texts of drawings and consoles whose contrast with what lies behind them is less than the 4.5 that
/// WCAG asks for.
const PALE: &str = "
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const luminance = colour => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(byte => {
            const part = byte / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (one, other) => {
        const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
        return (light + 0.05) / (dark + 0.05);
    };
    const style = (element, pseudo) => getComputedStyle(element, pseudo);
    const page = style(document.documentElement).backgroundColor;
    const wrong = [];
    const judge = (text, ink, ground) => {
        const found = contrast(ink, ground);
        if (found < 4.5) wrong.push(`pale, ${found.toFixed(1)}: ${text}`);
    };
    for (const text of document.querySelectorAll('svg.drawing text')) {
        const { left, top, width, height } = text.getBoundingClientRect();
        const [x, y] = [left + width / 2, top + height / 2];
        const behind = [...text.closest('svg').querySelectorAll('rect')].filter(rect => {
            const box = rect.getBoundingClientRect();
            return box.left < x && x < box.right && box.top < y && y < box.bottom
                && style(rect).fill !== 'none'
                && rect.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING;
        }).pop();
        judge(text.textContent, style(text).fill, behind ? style(behind).fill : page);
    }
    for (const code of document.querySelectorAll('code.language-console')) {
        judge(code.textContent, style(code).color, style(code).backgroundColor);
        const command = code.querySelector('.command');
        if (command) judge('a prompt', style(command, '::before').color, style(code).backgroundColor);
        const label = style(code.parentElement, '::before');
        if (label.content !== 'none') judge(label.content, label.color, label.backgroundColor);
    }
    return wrong;";

/// Consoles that don't read as such: what is typed is bold behind its prompt, what is printed is plain and
/// not painted, and what is marked says so.
const CONSOLES: &str = "
    const labels = { typed: '\"type it\"', attack: '\"the attack works\"', held: '\"the attack fails\"' };
    const wrong = [];
    for (const code of document.querySelectorAll('code.language-console')) {
        const command = code.querySelector('.command');
        const mark = Object.keys(labels).find(mark => code.classList.contains(mark));
        const label = getComputedStyle(code.parentElement, '::before').content;
        const reads = command && getComputedStyle(command).fontWeight >= 600
            && getComputedStyle(command, '::before').content === '\"$ \"'
            && getComputedStyle(code).fontWeight < 600
            && !code.querySelector('[class^=hljs-]')
            && label === (labels[mark] ?? 'none');
        if (!reads) wrong.push(`no console: ${label} ${code.textContent}`);
    }
    return wrong;";

/// The parts of the container atop the page that are lit, and those that are new.
const LIT: &str = "
    const parts = [...document.querySelectorAll('.so-far g')];
    const style = part => getComputedStyle(part.querySelector('rect'));
    const lit = parts.filter(part => parseFloat(style(part).strokeDasharray) === 0);
    const isNew = part => style(part).fill === style(part).stroke;
    return [lit, parts.filter(isNew)].map(some => some.map(part => parseInt(part.textContent)));";

/// What paper hides: an answer that stays closed, or a button that nobody can press.
const ON_PAPER: &str = "
    const closed = [...document.querySelectorAll('details')].filter(
        details => getComputedStyle(details, '::details-content').contentVisibility !== 'visible');
    const buttons = [...document.querySelectorAll('main .buttons')].filter(button => button.checkVisibility());
    return [...closed, ...buttons].map(element => 'on paper: ' + element.textContent);";

/// The built book; nothing where the tools are missing.
fn built() -> Option<tempfile::TempDir> {
    let tools = [
        ("mdbook", "mdbook: cargo install mdbook"),
        ("chromedriver", "chromium-driver"),
    ];
    if !tools.iter().all(|(tool, package)| have(tool, package)) {
        return None;
    }
    let book = folder();
    run(Command::new("mdbook")
        .arg("build")
        .arg("--dest-dir")
        .arg(book.path())
        .arg(workspace().join("book"))
        .stderr(Stdio::null()));
    Some(book)
}

#[test]
fn the_copy_button_takes_the_commands_only() {
    let Some(book) = built() else { return };
    let driver = Driver::start();
    let window = Window::open(&driver, 1280, 900);
    let mut copied = 0;
    for page in ["01-uts.md", "03-mount.md"] {
        let file = page.replace(".md", ".html");
        window.go(&format!("file://{}/{file}", book.path().display()));
        // The buttons fade in where the mouse is; here they are there.
        window.ask(
            "document.addEventListener('copy', event => window.copied = event.target.value);
             const style = document.createElement('style');
             style.textContent = 'pre > .buttons { visibility: visible; opacity: 1; transition: none }';
             document.head.append(style);",
        );
        for (at, commands) in commands(page).iter().enumerate() {
            let code = format!("document.querySelectorAll('code.language-console')[{at}]");
            window.click(&format!(
                "return {code}.parentElement.querySelector('.clip-button')"
            ));
            assert_eq!(window.ask("return window.copied"), *commands, "{page}");
            copied += 1;
        }
    }
    assert!(copied > 8, "{copied}");
}

#[test]
fn the_book_is_whole_in_a_browser() {
    let Some(book) = built() else { return };
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
                let mut judge = |place: &str, scripts: &[&str]| {
                    for script in scripts {
                        let found = window.ask(script);
                        if found.as_array().is_none_or(|found| !found.is_empty()) {
                            wrong.push(format!("{place}: {found}"));
                        }
                    }
                };
                judge(
                    &place,
                    &[OVERFLOWING, MISSING_PICTURES, LABELS, PALE, CONSOLES],
                );
                if let Some(chapter) = CHAPTERS
                    .iter()
                    .find(|chapter| page == chapter.page.replace(".md", ".html"))
                {
                    let all = Vec::from_iter(1..=chapter.number);
                    let lit = json!([all, [chapter.number]]);
                    assert_eq!(window.ask(LIT), lit, "{place}: what is lit, what is new");
                }
                window.tell("Emulation.setEmulatedMedia", &json!({ "media": "print" }));
                judge(&format!("{place}, printed"), &[ON_PAPER, PALE]);
                let paper =
                    window.ask("return getComputedStyle(document.documentElement).backgroundColor");
                assert_eq!(paper, "rgb(255, 255, 255)", "{place}: paper is white");
                window.tell("Emulation.setEmulatedMedia", &json!({ "media": "" }));
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
