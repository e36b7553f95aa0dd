package event

import (
	"math"
	"strconv"
)

// exactPowers are the powers of ten that a float64 represents exactly.
var exactPowers = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// parseDouble converts a JSON number, and reports whether it is finite as a double. A
// number that is too small becomes zero.
func parseDouble(b []byte) (float64, bool) {
	if f, ok := shortDouble(b); ok {
		return f, true
	}
	f, err := strconv.ParseFloat(string(b), 64)
	return f, err == nil && !math.IsInf(f, 0)
}

// shortDouble converts numbers of at most 15 digits without exponent. Both the
// digits and the power of ten are exact, so one division rounds correctly.
func shortDouble(b []byte) (float64, bool) {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 16 {
		return 0, false
	}
	var mantissa uint64
	digits, fraction, point := 0, 0, 0
	for _, c := range b {
		switch {
		case isDigit(c):
			mantissa = mantissa*10 + uint64(c-'0')
			digits++
			fraction += point
		case c == '.':
			point = 1
		default:
			return 0, false
		}
	}
	if digits > 15 {
		return 0, false
	}
	f := float64(mantissa) / exactPowers[fraction]
	if negative {
		f = -f
	}
	return f, true
}

// parseInt converts a JSON number without fraction and exponent, and reports
// whether it fits.
func parseInt(b []byte) (int64, bool) {
	i, err := strconv.ParseInt(string(b), 10, 64)
	return i, err == nil
}
