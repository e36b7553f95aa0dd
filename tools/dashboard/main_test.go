package main

import (
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDashboardIsDrawn draws our dashboard with the answers of a Prometheus that knows two
// series for every query, one of them with a gap.
func TestDashboardIsDrawn(t *testing.T) {
	var asked []string
	prometheus := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		asked = append(asked, query.Get("query"))
		at, err := time.Parse(time.RFC3339, query.Get("start"))
		if err != nil || r.URL.Path != "/api/v1/query_range" {
			http.Error(w, "bad", http.StatusBadRequest)
			return
		}
		point := func(seconds int, value string) string {
			return `[` + strconv.FormatInt(at.Unix()+int64(seconds), 10) + `,"` + value + `"]`
		}
		_, _ = w.Write([]byte(`{"status":"success","data":{"result":[` +
			`{"metric":{"service":"sams"},"values":[` + point(0, "1") + "," + point(60, "2") + "," + point(600, "NaN") + "," + point(1800, "3") + `]},` +
			`{"metric":{"service":"pings"},"values":[` + point(0, "0.5") + `]}]}}`))
	}))
	defer prometheus.Close()
	out := filepath.Join(t.TempDir(), "out.png")
	if err := run(t.Context(), []string{"-dashboard", "../../deploy/grafana/telemetry-relay.json", "-prometheus", prometheus.URL, "-out", out}); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	colours := map[any]bool{}
	for x := range picture.Bounds().Dx() {
		for y := range picture.Bounds().Dy() {
			colours[picture.At(x, y)] = true
		}
	}
	if size := picture.Bounds().Size(); size.X < 1000 || size.Y < 1000 || len(colours) < 20 {
		t.Errorf("the picture is %v with %d colours", size, len(colours))
	}
	for _, q := range asked {
		if strings.Contains(q, "$") {
			t.Errorf("a variable is left in %s", q)
		}
	}
}

func TestSeriesAreCutAtGaps(t *testing.T) {
	var l line
	for _, s := range []int64{0, 1, 2, 5, 6, 9} {
		l.at, l.y = append(l.at, time.Unix(s, 0)), append(l.y, float64(s))
	}
	var sizes []int
	for p := range l.parts(time.Second) {
		sizes = append(sizes, len(p.y))
	}
	if len(sizes) != 3 || sizes[0] != 3 || sizes[1] != 2 || sizes[2] != 1 {
		t.Errorf("got %v", sizes)
	}
}

func TestFaultsAreReported(t *testing.T) {
	prometheus := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"status":"error","error":"parse error"}`))
	}))
	defer prometheus.Close()
	out := filepath.Join(t.TempDir(), "out.png")
	err := run(t.Context(), []string{"-dashboard", "../../deploy/grafana/telemetry-relay.json", "-prometheus", prometheus.URL, "-out", out})
	if err == nil || !strings.Contains(err.Error(), "parse error") {
		t.Errorf("got %v", err)
	}
}
