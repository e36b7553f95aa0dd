package dlq

import "testing"

func TestTrendComparesRecentHoursWithEarlierOnes(t *testing.T) {
	even := func(n int) []int {
		hours := make([]int, FaultHours)
		for i := range hours {
			hours[i] = n
		}
		return hours
	}
	with := func(hours []int, last ...int) []int { return append(hours[:len(hours)-len(last)], last...) }
	for _, c := range []struct {
		name  string
		hours []int
		want  Trend
		line  string
	}{
		{"none", even(0), Old, "························"},
		{"as ever", even(4), Steady, "████████████████████████"},
		{"new", with(even(0), 0, 1, 40), Growing, "······················▁█"},
		{"one", with(even(0), 1), Steady, "·······················█"},
		{"more", with(even(4), 7, 7, 8), Growing, "▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▇▇█"},
		{"a little more", with(even(4), 5, 5, 5), Steady, "▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇███"},
		{"less", with(even(4), 1, 1, 1), Falling, "█████████████████████▂▂▂"},
		{"over", with(even(4), 0, 0, 0), Stopped, "█████████████████████···"},
	} {
		if got := TrendOf(c.hours); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if got := Sparkline(c.hours); got != c.line {
			t.Errorf("%s: %s, want %s", c.name, got, c.line)
		}
	}
	if TrendOf(nil) != Old || Sparkline(nil) != "" {
		t.Error("no hours")
	}
}
