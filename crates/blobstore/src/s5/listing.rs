//! Listings of directories, in the four shapes that path services answer with.

use serde_json::Value;

/// Pages of one listing that are read at most.
pub const PAGES: usize = 100;

/// Microseconds between 1970-01-01 and 2000-01-01.
const EPOCH: i64 = 946_684_800_000_000;

#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub length: Option<u64>,
    /// Microseconds since 2000-01-01 UTC.
    pub stored_at: Option<i64>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// Where the next page begins, if there is one.
    pub cursor: Option<String>,
}

/// Reads `["path", ..]`, `[{"name", "size"}, ..]`, `{"entries": [..], "cursor"}` and `{"items": [..]}`. Directories are left
/// out; of paths, the last segment is the name. `None` if it is none of these.
pub fn parse(body: &[u8], directory: &str) -> Option<Page> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let list =
        value.as_array().or_else(|| value.get("entries")?.as_array()).or_else(|| value.get("items")?.as_array())?;
    let cursor = value.get("cursor").and_then(Value::as_str).filter(|cursor| !cursor.is_empty());
    let entries = list.iter().filter_map(|item| entry(item, directory)).collect();
    Some(Page { entries, cursor: cursor.map(str::to_owned) })
}

fn entry(item: &Value, directory: &str) -> Option<Entry> {
    if let Some(text) = item.as_str() {
        let name = text.strip_prefix(directory).unwrap_or(text);
        return plain(name).map(|name| Entry { name, length: None, stored_at: None });
    }
    if item.get("type").and_then(Value::as_str).is_some_and(|kind| kind != "file") {
        return None;
    }
    let name = item.get("name")?.as_str()?;
    let time = ["modified", "timestamp", "created"].into_iter().find_map(|key| item.get(key)?.as_i64());
    let stored_at = time.and_then(|ms| ms.checked_mul(1000)?.checked_sub(EPOCH));
    let name = plain(name.strip_prefix(directory).unwrap_or(name))?;
    Some(Entry { name, length: item.get("size").and_then(Value::as_u64), stored_at })
}

fn plain(name: &str) -> Option<String> {
    (!name.is_empty() && !name.contains('/')).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(body: &str) -> Option<Vec<String>> {
        parse(body.as_bytes(), "home/x/").map(|page| page.entries.into_iter().map(|entry| entry.name).collect())
    }

    #[test]
    fn four_shapes() {
        let two = Some(vec!["a.bin".to_owned(), "b.bin".to_owned()]);
        assert_eq!(names(r#"["home/x/a.bin","b.bin","home/x/deep/c.bin"]"#), two);
        assert_eq!(
            names(r#"[{"name":"a.bin","size":1,"type":"file"},{"name":"b.bin"},{"name":"d","type":"directory"}]"#),
            two
        );
        assert_eq!(names(r#"{"path":"home/x/","entries":[{"name":"a.bin","type":"file"},{"name":"b.bin"}]}"#), two);
        assert_eq!(names(r#"{"items":["a.bin","b.bin"]}"#), two);
        for body in ["", "{}", "7", r#"{"error":"File not found"}"#, r#"{"entries":7}"#] {
            assert_eq!(names(body), None, "{body}");
        }
        assert_eq!(names(r#"[7,null,{"size":3},{"name":""}]"#), Some(vec![]));
    }

    #[test]
    fn times_lengths_and_pages() {
        let body = br#"{"entries":[{"name":"a.bin","type":"file","size":5,"created":1,"modified":946684800001}],"cursor":"n"}"#;
        let page = parse(body, "").unwrap();
        assert_eq!(page.cursor.as_deref(), Some("n"));
        assert_eq!(page.entries, [Entry { name: "a.bin".to_owned(), length: Some(5), stored_at: Some(1000) }]);
        let extreme = parse(br#"[{"name":"a","modified":9223372036854775807}]"#, "").unwrap();
        assert_eq!(extreme.entries[0].stored_at, None);
    }
}
