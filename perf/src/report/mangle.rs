//! What `hitless-testbeds mangle --json` printed, for the page: each wrong message, what the RFC says
//! to it, and what came back.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;

use serde::Deserialize;

use super::svg::escaped;

#[derive(Deserialize)]
struct Table {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    action: String,
    role: String,
    rfc: String,
    expected: String,
    seen: String,
    passed: bool,
}

/// The table as a section of the page.
pub fn section(file: &Path) -> Result<String, Box<dyn Error>> {
    let table: Table = super::parsed(file, "--mangle", "hitless-testbeds mangle --json")?;
    if table.rows.is_empty() {
        return Err(format!("--mangle {}: no case was played", file.display()).into());
    }
    Ok(draw(&table))
}

fn draw(table: &Table) -> String {
    let right = table.rows.iter().filter(|row| row.passed).count();
    let mut out = format!(
        "<h2>Wrong messages, and what comes back</h2><p>A peer with real keys does one thing wrong at a \
         time; an honest exchange follows each. {right} of {} were answered as the RFC says.</p>\
         <details><summary>All of them</summary><table><tr><th>we are</th><th>wrong</th><th>rule</th>\
         <th>the RFC's answer</th><th>ours</th></tr>",
        table.rows.len()
    );
    // What failed is what to look at.
    let mut rows: Vec<&Row> = table.rows.iter().collect();
    rows.sort_by_key(|row| row.passed);
    for row in rows {
        let verdict = if row.passed { "" } else { "FAILED: " };
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{verdict}{}</td></tr>",
            escaped(&row.role),
            escaped(&row.action),
            escaped(&row.rfc),
            escaped(&row.expected),
            escaped(&row.seen)
        );
    }
    out.push_str("</table></details>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_a_row_and_what_failed_comes_first() {
        let text = r#"{"passed":false,"rows":[
            {"action":"major version 3","role":"responder","rfc":"RFC 7296 2.5",
             "expected":"N(<3>)","seen":"N(<3>)","passed":true},
            {"action":"27 octets","role":"responder","rfc":"RFC 7296 3.1",
             "expected":"silence","seen":"a reply","passed":false}]}"#;
        let page = draw(&serde_json::from_str(text).unwrap());
        assert!(page.contains("1 of 2 were answered"), "{page}");
        assert!(page.contains("N(&lt;3&gt;)") && !page.contains("<3>"));
        let failed = page.find("FAILED: a reply").unwrap();
        assert!(failed < page.find("major version 3").unwrap());
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = section(Path::new("/nonexistent")).err().unwrap();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
    }
}
