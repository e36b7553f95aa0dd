package event

import "time"

// The bounds of google.protobuf.Timestamp: the years 0001 to 9999.
const (
	minSeconds = -62135596800
	maxSeconds = 253402300799
)

// instant is a google.protobuf.Timestamp.
type instant struct {
	seconds int64
	nanos   int32
}

// instantOf returns the instant of t, and whether it is within the years 0001 to
// 9999.
func instantOf(t time.Time) (instant, bool) {
	i := instant{t.Unix(), int32(t.Nanosecond())}
	return i, i.valid()
}

func (i instant) valid() bool { return i.seconds >= minSeconds && i.seconds <= maxSeconds }

// parseInstant reads RFC 3339 strictly: upper case T and Z, two digits everywhere, a full
// stop before one to nine digits of a fraction, no leap second. time.Parse accepts more
// than that.
func parseInstant(b []byte) (instant, bool) {
	if len(b) < len("2006-01-02T15:04:05Z") ||
		b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		return instant{}, false
	}
	century, year := twoDigits(b), twoDigits(b[2:])
	month, day := twoDigits(b[5:]), twoDigits(b[8:])
	hour, minute, second := twoDigits(b[11:]), twoDigits(b[14:]), twoDigits(b[17:])
	if century > 99 || year > 99 || month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59 {
		return instant{}, false
	}
	year += 100 * century
	if day < 1 || day > daysIn(year, month) {
		return instant{}, false
	}
	b = b[19:]
	nanos := int32(0)
	if b[0] == '.' {
		i, unit := 1, int32(100_000_000)
		for ; i < len(b) && isDigit(b[i]); i++ {
			nanos += int32(b[i]-'0') * unit
			unit /= 10
		}
		if i == 1 || i > 10 {
			return instant{}, false
		}
		b = b[i:]
	}
	offset, ok := parseOffset(b)
	if !ok {
		return instant{}, false
	}
	clock := (int(hour)*60+int(minute))*60 + int(second) - offset
	at := instant{daysSinceEpoch(int(year), int(month), int(day))*86400 + int64(clock), nanos}
	return at, at.valid()
}

// parseOffset reads Z or ±hh:mm and returns seconds.
func parseOffset(b []byte) (int, bool) {
	if len(b) == 1 && b[0] == 'Z' {
		return 0, true
	}
	if len(b) != len("+00:00") || b[0] != '+' && b[0] != '-' || b[3] != ':' {
		return 0, false
	}
	hours, minutes := twoDigits(b[1:]), twoDigits(b[4:])
	if hours > 23 || minutes > 59 {
		return 0, false
	}
	offset := int(hours)*3600 + int(minutes)*60
	if b[0] == '-' {
		offset = -offset
	}
	return offset, true
}

// twoDigits reads two digits. It returns more than 99 if they are not digits.
func twoDigits(b []byte) uint {
	tens, ones := b[0]-'0', b[1]-'0'
	if tens > 9 || ones > 9 {
		return 1000
	}
	return uint(tens)*10 + uint(ones)
}

func daysIn(year, month uint) uint {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	default:
		return 31
	}
}

// daysSinceEpoch counts the days from 1970-01-01. Its years begin in March, so that the
// leap day is the last one; 719468 days lie between March of year 0 and the epoch.
func daysSinceEpoch(year, month, day int) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	// Year 0 becomes -1; a shift by a whole cycle of 400 years keeps the
	// divisions positive.
	year += 400
	dayOfYear := (153*(month-3)+2)/5 + day - 1
	days := year*365 + year/4 - year/100 + year/400 + dayOfYear
	return int64(days - 719468 - 146097)
}
