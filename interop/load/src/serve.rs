//! The generator's process: takes one order a line, answers one line of JSON.

use std::io::{self, BufRead, Write};

use serde_json::{Value, json};

use crate::epoll::wake_on_time;
use crate::loads;

/// Carries out orders until the input ends.
pub fn serve() -> io::Result<()> {
    wake_on_time();
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        writeln!(output, "{}", answer(&line?))?;
        output.flush()?;
    }
    Ok(())
}

fn answer(line: &str) -> Value {
    match serde_json::from_str(line) {
        Ok(order) => loads::run(&order).unwrap_or_else(|failure| json!({"error": failure.to_string()})),
        Err(error) => json!({"error": format!("no order: {error}")}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_done_is_an_error() {
        for line in ["", "7", r#"{"load": "dance"}"#, r#"{"load": "streams"}"#, r#"{"load": "floor", "x": 1}"#] {
            assert!(answer(line)["error"].is_string(), "{line}");
        }
    }
}
