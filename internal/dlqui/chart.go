package dlqui

import (
	"fmt"
	"html/template"
	"strings"
)

// chart draws numbers per hour as bars, the newest at the right. A screen reader reads its
// label.
func chart(hours []int, width, height int) template.HTML {
	largest, total := 0, 0
	for _, n := range hours {
		largest = max(largest, n)
		total += n
	}
	last := 0
	if len(hours) > 0 {
		last = hours[len(hours)-1]
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="chart" role="img" width="%d" height="%d" viewBox="0 0 %d %d" aria-label="rejections per hour: %d in the last %d hours, %d in the last one">`,
		width, height, width, height, total, len(hours), last)
	step := float64(width) / float64(max(1, len(hours)))
	for i, n := range hours {
		size, class := 1.0, "none"
		if n > 0 {
			size, class = max(2, float64(height)*float64(n)/float64(largest)), "some"
		}
		fmt.Fprintf(&b, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%d h ago: %d</title></rect>`,
			class, float64(i)*step, float64(height)-size, max(1, step-1), size, len(hours)-1-i, n)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // it has numbers only
}
