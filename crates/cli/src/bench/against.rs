//! Ratios to an earlier report.

use std::collections::BTreeSet;
use std::path::Path;

use super::report::{Against, Figures, Ratios, Report, decimals};
use crate::output::say;

/// Puts the ratios to `before` into `report`. Returns which is furthest past the limit, if one is.
pub(super) fn compare(
    report: &mut Report,
    path: &Path,
    before: &Report,
    max_slowdown: f64,
) -> anyhow::Result<Option<String>> {
    let path = path.display().to_string();
    let of = |report: &Report| {
        let s = &report.settings;
        let live = if s.live { ", live" } else { "" };
        format!("{} of {} parameters at {} ms{live}", s.model, s.parameters, s.delay_ms)
    };
    let (now, then) = (of(report), of(before));
    if now != then {
        anyhow::bail!("{path} measured {then}, this run {now}: their times cannot be compared");
    }
    let mut differs = BTreeSet::new();
    let decoding = [before, &*report].map(|report| report.settings.decode.clone());
    if decoding[0] != decoding[1] {
        differs.insert(decoding.map(|decode| format!("with --decode {decode}")));
    }
    let mut worst: Option<(f64, String)> = None;
    for measured in &mut report.backends {
        for figures in &mut measured.recordings {
            let audio = &figures.audio;
            let found = before.backends.iter().filter(|old| old.backend == measured.backend).find_map(|old| {
                let same = |f: &&Figures| f.audio.path == audio.path && f.audio.duration_s == audio.duration_s;
                Some((old, old.recordings.iter().find(same)?))
            });
            let Some((old, then)) = found else {
                anyhow::bail!("{path} has no figures of {} on {}", audio.path, measured.backend);
            };
            if old.device != measured.device {
                differs.insert([&old.device, &measured.device].map(|device| format!("on {device}")));
            }
            let ratio = |now: f64, then: f64| decimals(now / then.max(1e-3));
            let ratios = Ratios {
                total: ratio(figures.total_ms, then.total_ms),
                encode: ratio(figures.encode_ms, then.encode_ms),
                pass: ratio(figures.pass_ms.p50, then.pass_ms.p50),
            };
            for (what, ratio) in
                [("the whole", ratios.total), ("the encoder", ratios.encode), ("the median pass", ratios.pass)]
            {
                if ratio > max_slowdown && worst.as_ref().is_none_or(|(worst, _)| ratio > *worst) {
                    let (backend, audio) = (&measured.backend, &audio.path);
                    let sentence = format!(
                        "{audio} on {backend}: {what} took {ratio} times as long as in {path}, \
                         at most {max_slowdown} is allowed"
                    );
                    worst = Some((ratio, sentence));
                }
            }
            figures.against = Some(ratios);
        }
    }
    for [then, now] in differs {
        say(&format!("{path} was measured {then}, this run {now}"));
    }
    report.against = Some(Against { path, max_slowdown });
    Ok(worst.map(|(_, sentence)| sentence))
}
