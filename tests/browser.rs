//! Chromium as a person uses it: pages opened at a width and in a theme, keys pressed, what was said on the console.
//!
//! Spoken to by its DevTools protocol over two pipes, so that no port is taken: messages are JSON, a zero byte ends each.

use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long anything may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running browser with one page.
pub struct Browser {
    child: Child,
    input: ChildStdin,
    output: Receiver<Json>,
    session: Option<String>,
    last_id: u64,
    /// What the page complained of, and what it wanted from elsewhere.
    pub complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

/// The browser's program: what `SNNC_CHROMIUM` names, or one of the usual names.
pub fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("SNNC_CHROMIUM") {
        return Some(named.into());
    }
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let places = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    places.into_iter().find(|path| path.is_file())
}

impl Browser {
    /// Starts it without a window.
    pub fn start(program: &Path) -> Self {
        let profile = tempfile::tempdir().expect("there is room for a profile");
        // The browser reads messages from descriptor 3 and writes to 4.
        let script = "exec \"$0\" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                      --remote-debugging-pipe --user-data-dir=\"$1\" about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .arg(program)
            .arg(profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the browser starts");
        let input = child.stdin.take().expect("it is piped");
        let stdout = child.stdout.take().expect("it is piped");
        let (send, output) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(stdout).split(0) {
                let Ok(message) = message else { return };
                let Ok(json) = serde_json::from_slice(&message) else { return };
                if send.send(json).is_err() {
                    return;
                }
            }
        });
        let complaints = Vec::new();
        let mut browser = Self { child, input, output, session: None, last_id: 0, complaints, _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(String::from);
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.call("Performance.enable", json!({ "timeDomain": "threadTicks" }));
        browser
    }

    /// Calls a method and waits for its result.
    pub fn call(&mut self, method: &str, params: Json) -> Json {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.write_all(&bytes).and_then(|()| self.input.flush()).expect("the browser listens");
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let message = self.output.recv_timeout(left).unwrap_or_else(|e| panic!("{method}: no answer ({e})"));
            if message["id"] == self.last_id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.listen(&message);
        }
    }

    fn listen(&mut self, event: &Json) {
        let params = &event["params"];
        let complaint = match event["method"].as_str().unwrap_or("") {
            "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" if params["type"] != "log" => Some(params["args"].to_string()),
            "Log.entryAdded" => Some(params["entry"].to_string()),
            "Network.requestWillBeSent" => {
                let url = params["request"]["url"].as_str().unwrap_or("");
                let inside = url.starts_with("file:") || url.starts_with("data:") || url.starts_with("about:");
                (!inside).then(|| format!("wants {url}"))
            }
            _ => None,
        };
        self.complaints.extend(complaint);
    }

    /// Sets the page's size and theme; takes effect at once.
    pub fn look(&mut self, width: u32, height: u32, theme: &str) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!([
            { "name": "prefers-color-scheme", "value": theme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Opens a page and waits until `ready` is true in it; says how long that took.
    pub fn open(&mut self, page: &Path, ready: &str) -> Duration {
        self.visit(&format!("file://{}", page.display()), ready)
    }

    /// The same of an address. What a page wants of a server is among the complaints.
    pub fn visit(&mut self, address: &str, ready: &str) -> Duration {
        let start = Instant::now();
        self.call("Page.navigate", json!({ "url": address }));
        while self.eval(ready) != json!(true) {
            assert!(start.elapsed() < PATIENCE, "the page is not ready: {:?}", self.complaints);
            std::thread::sleep(Duration::from_millis(10));
        }
        start.elapsed()
    }

    /// Seconds of processor time that the page's main thread has worked since it was opened. Other work on the machine does not
    /// count.
    pub fn worked(&mut self) -> f64 {
        let metrics = self.call("Performance.getMetrics", json!({}));
        let all = metrics["metrics"].as_array().into_iter().flatten();
        all.filter(|metric| metric["name"] == "TaskDuration").filter_map(|metric| metric["value"].as_f64()).sum()
    }

    /// The value of an expression in the page.
    pub fn eval(&mut self, expression: &str) -> Json {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// The least contrast of any text with the ground behind it, as WCAG 2 measures it, and where it is. Looked at are the
    /// elements of an expression, which are visible, have text of their own and stand in nothing of `left_out`.
    pub fn least_contrast(&mut self, elements: &str, left_out: &str) -> Json {
        self.eval(&CONTRAST.replace("ELEMENTS", elements).replace("LEFT_OUT", left_out))
    }

    /// Presses a key: its name, and the text that it writes if any.
    pub fn press(&mut self, key: &str, text: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let mut params = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                params["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// The page as it would be printed on A4, PDF in base64.
    pub fn printed(&mut self) -> String {
        let paper =
            json!({ "paperWidth": 8.27, "paperHeight": 11.69, "printBackground": true, "preferCSSPageSize": true });
        self.call("Page.printToPDF", paper)["data"].as_str().unwrap_or("").to_string()
    }

    /// Sets the page's width as paper has it, and shows it as it is printed.
    pub fn look_print(&mut self, width: u32) {
        let metrics = json!({ "width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        self.call("Emulation.setEmulatedMedia", json!({ "media": "print" }));
    }

    /// Where files that the page saves go.
    pub fn save_into(&mut self, folder: &Path) {
        let to = json!({ "behavior": "allow", "downloadPath": folder.display().to_string() });
        self.call("Page.setDownloadBehavior", to);
    }

    /// A picture of the whole page, PNG in base64.
    pub fn picture(&mut self) -> String {
        let picture = self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
        picture["data"].as_str().unwrap_or("").to_string()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers end with it. It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CONTRAST: &str = r"(() => {
  const parse = c => (c.match(/[\d.]+/g) || []).map(Number);
  const lin = x => (x /= 255) <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const lum = ([r, g, b]) => .2126 * lin(r) + .7152 * lin(g) + .0722 * lin(b);
  const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] > .99) return c; } return [255, 255, 255]; };
  let least = { ratio: 21 };
  for (const e of ELEMENTS) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !e.checkVisibility() || e.closest('LEFT_OUT')) continue;
    const [a, b] = [lum(parse(getComputedStyle(e).color)), lum(ground(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < least.ratio) least = { ratio, text: e.textContent.slice(0, 40), class: e.className, tag: e.tagName };
  }
  return least;
})()";
