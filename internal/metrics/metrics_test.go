package metrics_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/metrics"
)

var update = flag.Bool("update", false, "write the table of docs/metrics.md")

const (
	document   = "../../docs/metrics.md"
	tableBegin = "<!-- Made from the catalogue by: go test ./internal/metrics -update -->\n"
	tableEnd   = "<!-- End of the catalogue. -->\n"
)

// TestDocumentMatchesCatalogue holds the table of docs/metrics.md against the catalogue.
func TestDocumentMatchesCatalogue(t *testing.T) {
	data, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), tableBegin)
	got, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s: the marks of the table are gone", document)
	}
	want := table()
	if *update {
		if err := os.WriteFile(document, []byte(before+tableBegin+want+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s differs from the catalogue; run go test ./internal/metrics -update (-want +got):\n%s", document, diff)
	}
}

func table() string {
	var b strings.Builder
	b.WriteString("\n| metric | kind | labels | |\n|---|---|---|---|\n")
	for _, d := range metrics.Catalogue {
		var labels []string
		for _, l := range d.Labels {
			is := l.Meaning
			if l.Values != nil {
				is = "`" + strings.Join(l.Values, "`, `") + "`"
			}
			labels = append(labels, fmt.Sprintf("`%s`: %s", l.Name, is))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.FullName(), d.Kind, strings.Join(labels, "; "), d.Help)
	}
	b.WriteString("\n")
	return b.String()
}

// TestRegistryMatchesCatalogue compares what the registry serves with the catalogue, and that
// every series that can be known is there from the start.
func TestRegistryMatchesCatalogue(t *testing.T) {
	m := metrics.New()
	m.Expect([]string{"a"}, []string{"r"})
	m.Info.WithLabelValues("1", "drain").Set(1)
	families, err := m.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[dto.MetricType]metrics.Kind{
		dto.MetricType_COUNTER: metrics.Counter, dto.MetricType_GAUGE: metrics.Gauge, dto.MetricType_HISTOGRAM: metrics.Histogram,
	}
	got := map[string]string{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), metrics.Prefix) {
			continue
		}
		series := map[string][]string{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !slices.Contains(series[l.GetName()], l.GetValue()) {
					series[l.GetName()] = append(series[l.GetName()], l.GetValue())
				}
			}
		}
		got[f.GetName()] = fmt.Sprint(kinds[f.GetType()], " ", f.GetHelp(), " ", len(series))
		d, _ := metrics.Find(strings.TrimPrefix(f.GetName(), metrics.Prefix))
		for _, l := range d.Labels {
			want := slices.Sorted(slices.Values(l.Values))
			if have := slices.Sorted(slices.Values(series[l.Name])); l.Values != nil && l.Name != "mode" && !slices.Equal(have, want) {
				t.Errorf("%s: the label %s is %q at the start, want %q", f.GetName(), l.Name, have, want)
			}
		}
	}
	want := map[string]string{}
	for _, d := range metrics.Catalogue {
		want[d.FullName()] = fmt.Sprint(d.Kind, " ", d.Help, " ", len(d.Labels))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what is served differs from the catalogue (-want +got):\n%s", diff)
	}
}
