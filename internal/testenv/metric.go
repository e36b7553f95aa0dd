package testenv

import (
	"strconv"
	"strings"
)

// SumMetric adds up the series of a metric in the text format of Prometheus.
func SumMetric(text, name string) (sum float64) {
	for line := range strings.Lines(text) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if bare, _, _ := strings.Cut(series, "{"); bare != name {
			continue
		}
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			sum += n
		}
	}
	return sum
}
