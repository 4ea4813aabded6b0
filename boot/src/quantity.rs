//! A whole number and a unit, as times and sizes are written: `2 s`, `256 MiB`.

/// Returns the number, and the value of its unit in `units`; `None` for any other text.
pub(super) fn split<T: Copy>(text: &str, units: &[(&str, T)]) -> Option<(u64, T)> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, value) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    Some((number.parse().ok()?, *value))
}
