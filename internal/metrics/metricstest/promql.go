// Package metricstest checks what others say about the worker's metrics against
// the catalogue.
package metricstest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/metrics"
)

var (
	selector = regexp.MustCompile(`\b((?:telemetry_relay|go|process)_[a-z0-9_]+)(\{[^}]*\})?`)
	matcher  = regexp.MustCompile(`^\s*([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*$`)
	grouping = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
)

// collected are labels that come from the collection of metrics.
var collected = []string{"job", "instance"}

// Check returns what is wrong with the metrics, labels and label values that an
// expression of PromQL uses: each must be in the catalogue. Values that are
// variables of a dashboard ($…) are left alone.
func Check(expr string) []error {
	var faults []error
	found := selector.FindAllStringSubmatch(expr, -1)
	if len(found) == 0 {
		return []error{fmt.Errorf("%s: no metric of the worker's", expr)}
	}
	labels := slices.Clone(collected)
	for _, f := range found {
		name, matchers := f[1], strings.Trim(f[2], "{}")
		d, histogram, ok := find(name)
		if !ok {
			faults = append(faults, fmt.Errorf("%s: there is no metric %s", expr, name))
			continue
		}
		known := slices.Concat(d.LabelNames(), collected)
		if histogram {
			known = append(known, "le")
		}
		labels = append(labels, known...)
		for m := range strings.SplitSeq(matchers, ",") {
			if strings.TrimSpace(m) == "" {
				continue
			}
			if err := checkMatcher(d, known, m); err != nil {
				faults = append(faults, fmt.Errorf("%s: %s: %w", expr, name, err))
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(g[1], ",") {
			if label = strings.TrimSpace(label); label != "" && !slices.Contains(labels, label) {
				faults = append(faults, fmt.Errorf("%s: no metric has the label %s", expr, label))
			}
		}
	}
	return faults
}

// find returns the description of a metric by its name in PromQL.
func find(name string) (d metrics.Description, histogram, ok bool) {
	short, own := strings.CutPrefix(name, metrics.Prefix)
	if !own {
		return metrics.Description{Name: name}, false, served(name)
	}
	if d, ok = metrics.Find(short); ok {
		return d, false, d.Kind != metrics.Histogram
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, cut := strings.CutSuffix(short, suffix); cut {
			d, ok = metrics.Find(base)
			return d, suffix == "_bucket", ok && d.Kind == metrics.Histogram
		}
	}
	return metrics.Description{}, false, false
}

// served reports whether the Go runtime's or the process's metrics have the name.
func served(name string) bool {
	families, err := metrics.New().Registry.Gather()
	if err != nil {
		return false
	}
	for _, f := range families {
		if f.GetName() == name {
			return true
		}
	}
	return false
}

func checkMatcher(d metrics.Description, known []string, text string) error {
	m := matcher.FindStringSubmatch(text)
	if m == nil {
		return fmt.Errorf("the matcher %q is not understood", text)
	}
	label, operator, value := m[1], m[2], m[3]
	if !slices.Contains(known, label) {
		return fmt.Errorf("it has no label %s", label)
	}
	if strings.HasPrefix(value, "$") {
		return nil
	}
	for _, l := range d.Labels {
		if l.Name != label || l.Values == nil {
			continue
		}
		wanted := []string{value}
		if strings.HasSuffix(operator, "~") {
			wanted = strings.Split(value, "|")
		}
		for _, w := range wanted {
			if !slices.Contains(l.Values, w) {
				return fmt.Errorf("its label %s is never %q, only one of %q", label, w, l.Values)
			}
		}
	}
	return nil
}
