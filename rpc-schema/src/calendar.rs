//! Unix time as date and time of day.

/// A second in UTC, by the proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UtcTime {
    /// The year, 1970 or later.
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
    /// 0 to 23.
    pub hour: u64,
    /// 0 to 59.
    pub minute: u64,
    /// 0 to 59: Unix time has no leap seconds.
    pub second: u64,
}

impl UtcTime {
    /// So many seconds after the beginning of 1970. Any number is a time.
    pub fn at(unix_secs: u64) -> Self {
        let (days, second) = (unix_secs / 86_400, unix_secs % 86_400);
        // Years are counted from March on, so that a leap day is the last of its year. 719,468 days lie between 0000-03-01 and
        // 1970-01-01; 146,097 days make four centuries.
        let days = days.saturating_add(719_468);
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = (era * 400).saturating_add(year).saturating_add(carry);
        Self { year, month, day, hour: second / 3600, minute: second % 3600 / 60, second: second % 60 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days_and_at_the_end_of_time() {
        for (unix, date, time) in [
            (0, (1970, 1, 1), (0, 0, 0)),
            (951_782_399, (2000, 2, 28), (23, 59, 59)),
            (951_782_400, (2000, 2, 29), (0, 0, 0)),
            (951_868_800, (2000, 3, 1), (0, 0, 0)),
            (4_107_542_400, (2100, 3, 1), (0, 0, 0)),
            (1_735_689_599, (2024, 12, 31), (23, 59, 59)),
            (u64::MAX, (584_554_051_223, 11, 9), (7, 0, 15)),
        ] {
            let ((year, month, day), (hour, minute, second)) = (date, time);
            assert_eq!(UtcTime::at(unix), UtcTime { year, month, day, hour, minute, second });
        }
    }
}
