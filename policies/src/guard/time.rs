//! Parts of a moment in UTC.

/// A part of the time that an expression can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Since 1970.
    Seconds,
    Year,
    /// From 1.
    Month,
    /// From 1.
    Day,
    Hour,
    Minute,
    /// From 1 for Monday to 7 for Sunday.
    Weekday,
}

/// Every part by its name.
pub(super) const PARTS: [(&str, Part); 7] = [
    ("seconds", Part::Seconds),
    ("year", Part::Year),
    ("month", Part::Month),
    ("day", Part::Day),
    ("hour", Part::Hour),
    ("minute", Part::Minute),
    ("weekday", Part::Weekday),
];

impl Part {
    /// The part of this moment.
    pub(super) fn of(self, seconds: i64) -> i64 {
        let days = seconds.div_euclid(86_400);
        let of_day = seconds.rem_euclid(86_400);
        let (year, month, day) = civil(days);
        match self {
            Self::Seconds => seconds,
            Self::Year => year,
            Self::Month => month,
            Self::Day => day,
            Self::Hour => of_day.div_euclid(3_600),
            Self::Minute => of_day.rem_euclid(3_600).div_euclid(60),
            // 1970 began on a Thursday.
            Self::Weekday => days.saturating_add(3).rem_euclid(7).saturating_add(1),
        }
    }
}

/// Year, month and day of a day counted from 1970. Years are counted from March here, so that the leap day is the last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let leaps = of_era
        .div_euclid(1_460)
        .saturating_sub(of_era.div_euclid(36_524))
        .saturating_add(of_era.div_euclid(146_096));
    let year = of_era.saturating_sub(leaps).div_euclid(365);
    let before =
        year.saturating_mul(365).saturating_add(year.div_euclid(4)).saturating_sub(year.div_euclid(100));
    let of_year = of_era.saturating_sub(before);
    let month = of_year.saturating_mul(5).saturating_add(2).div_euclid(153);
    let start = month.saturating_mul(153).saturating_add(2).div_euclid(5);
    let day = of_year.saturating_sub(start).saturating_add(1);
    let (month, carried) =
        if month < 10 { (month.saturating_add(3), 0) } else { (month.saturating_sub(9), 1) };
    (year.saturating_add(era.saturating_mul(400)).saturating_add(carried), month, day)
}
