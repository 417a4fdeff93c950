//! Metrics in the Prometheus text format 0.0.4.
//!
//! The registry writes OpenMetrics, where the name in `HELP` and `TYPE` of a counter lacks the
//! `_total` of its samples; the older format wants one name everywhere, knows no units and has
//! no end mark.

/// Rewrites OpenMetrics text.
pub fn prometheus_text(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len() + 256);
    // HELP comes before TYPE, which is what tells that the name needs its ending.
    let mut help: Option<&str> = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let ending = if kind == "counter" { "_total" } else { "" };
            if let Some((_, text)) = help.take().and_then(|help| help.split_once(' ')) {
                out.push_str(&format!("# HELP {name}{ending} {text}\n"));
            }
            let kind = if kind == "unknown" { "untyped" } else { kind };
            out.push_str(&format!("# TYPE {name}{ending} {kind}\n"));
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_one_name_and_the_end_mark_goes() {
        let open_metrics = "# HELP a_b Things done.\n# TYPE a_b counter\na_b_total{x=\"1\"} 3\n\
                            # HELP c Open.\n# TYPE c gauge\n# UNIT c seconds\nc 1\n# EOF\n";
        let expected = "# HELP a_b_total Things done.\n# TYPE a_b_total counter\n\
                        a_b_total{x=\"1\"} 3\n# HELP c Open.\n# TYPE c gauge\nc 1\n";
        assert_eq!(prometheus_text(open_metrics), expected);
    }
}
