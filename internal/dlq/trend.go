package dlq

import "strings"

// Trend says whether a fault gets worse.
type Trend string

// The trends. The last three hours are compared with the hours before.
const (
	Growing Trend = "growing"
	Steady  Trend = "steady"
	Falling Trend = "falling"
	// Stopped means that the last three hours had no rejection.
	Stopped Trend = "stopped"
	// Old means that no hour had any.
	Old Trend = "old"
)

const (
	// recentHours are compared with the hours before.
	recentHours = 3
	// fewRejections are too few to call a fault growing.
	fewRejections = 3
)

// TrendOf returns the trend of rejections per hour, of which the last is the newest.
func TrendOf(hours []int) Trend {
	at := max(0, len(hours)-recentHours)
	before, recent := sum(hours[:at]), sum(hours[at:])
	// Numbers per hour, both multiplied by the hours of both.
	recentRate, beforeRate := recent*at, before*(len(hours)-at)
	switch {
	case recent+before == 0:
		return Old
	case recent == 0:
		return Stopped
	case recent >= fewRejections && 2*recentRate > 3*beforeRate:
		return Growing
	case 2*recentRate < beforeRate:
		return Falling
	}
	return Steady
}

func sum(numbers []int) (n int) {
	for _, x := range numbers {
		n += x
	}
	return n
}

// bars are the characters of a sparkline; noBar stands for zero.
const (
	bars  = "▁▂▃▄▅▆▇█"
	noBar = '·'
)

// Sparkline draws numbers as bars, in proportion to the largest of them.
func Sparkline(numbers []int) string {
	levels := []rune(bars)
	largest := 0
	for _, n := range numbers {
		largest = max(largest, n)
	}
	var b strings.Builder
	for _, n := range numbers {
		if n <= 0 {
			b.WriteRune(noBar)
			continue
		}
		b.WriteRune(levels[(n*len(levels)-1)/largest])
	}
	return b.String()
}
