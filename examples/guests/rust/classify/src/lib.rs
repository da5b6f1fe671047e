//! Sorts the lines of a web server's access log: what kind of client asked, and for which part of the site.

wit_bindgen::generate!({ path: "wit", world: "classify" });

struct Classify;

export!(Classify);

/// Marks of crawlers. Looked for first: they like to name a browser as well.
const BOTS: [&str; 9] =
    ["bot", "crawl", "spider", "slurp", "facebookexternalhit", "mediapartners", "archiver", "preview", "scan"];

/// Programs and libraries that fetch pages without a person before them.
const TOOLS: [&str; 14] = [
    "curl", "wget", "python", "go-http-client", "java/", "okhttp", "apachebench", "libwww", "axios", "node-fetch", "postman",
    "httpie", "wrk", "nginx",
];

const TABLETS: [&str; 4] = ["ipad", "tablet", "kindle", "silk/"];

const PHONES: [&str; 5] = ["iphone", "ipod", "windows phone", "opera mini", "mobile"];

const BROWSERS: [&str; 6] = ["mozilla/", "opera/", "chrome/", "safari/", "firefox/", "lynx/"];

impl Guest for Classify {
    fn classify_agent(agent: String) -> String {
        let agent = agent.to_ascii_lowercase();
        let has = |marks: &[&str]| marks.iter().any(|mark| agent.contains(mark));
        let class = if has(&BOTS) {
            "bot"
        } else if has(&TOOLS) {
            "tool"
        } else if has(&TABLETS) || (agent.contains("android") && !agent.contains("mobile")) {
            "tablet"
        } else if has(&PHONES) {
            "phone"
        } else if has(&BROWSERS) {
            "browser"
        } else {
            "other"
        };
        class.to_string()
    }

    fn url_section(url: String) -> String {
        // The path begins after "scheme://host"; a request line has the path alone.
        let path = match url.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
            None => &url,
        };
        let path = path.split(['?', '#']).next().unwrap_or_default();
        match path.trim_start_matches('/').split('/').next() {
            Some(segment) if !segment.is_empty() => segment.to_string(),
            _ => "/".to_string(),
        }
    }
}
