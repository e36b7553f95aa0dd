// Command dashboard draws the panels of a Grafana dashboard without Grafana: it
// asks a Prometheus the panels' own queries, and draws the answers at the panels'
// places. It knows the kinds of panels that our dashboard has: stat and timeseries.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "dashboard:", err)
		os.Exit(1)
	}
}

// dashboard is the part of Grafana's JSON that is drawn.
type dashboard struct {
	Title  string  `json:"title"`
	Panels []panel `json:"panels"`
}

type panel struct {
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct {
		X, Y, W, H int
	} `json:"gridPos"`
	FieldConfig struct {
		Defaults struct {
			Unit     string `json:"unit"`
			Mappings []struct {
				Options map[string]struct {
					Text string `json:"text"`
				} `json:"options"`
			} `json:"mappings"`
			Custom struct {
				ScaleDistribution struct {
					Type string `json:"type"`
				} `json:"scaleDistribution"`
			} `json:"custom"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
	Targets []struct {
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
	} `json:"targets"`
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("dashboard", flag.ContinueOnError)
	var (
		file       = flags.String("dashboard", "../deploy/grafana/telemetry-relay.json", "the dashboard's JSON")
		prometheus = flags.String("prometheus", "http://127.0.0.1:9090", "URL of a Prometheus")
		from       = flags.String("from", "", "RFC 3339 (default: an hour ago)")
		interval   = flags.String("rate-interval", "1m", "what $__rate_interval stands for")
		out        = flags.String("out", "dashboard.png", "the PNG to write")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	text, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		return fmt.Errorf("%s: %w", *file, err)
	}
	to := time.Now()
	begin := to.Add(-time.Hour)
	if *from != "" {
		if begin, err = time.Parse(time.RFC3339, *from); err != nil {
			return err
		}
	}
	q := querier{
		url: strings.TrimRight(*prometheus, "/"), from: begin, to: to,
		variables: strings.NewReplacer("$__rate_interval", *interval, "$job", ".*", "$service", ".*"),
	}
	var drawn []drawnPanel
	for _, p := range d.Panels {
		lines, err := q.panel(ctx, p)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Title, err)
		}
		drawn = append(drawn, drawnPanel{p, lines})
	}
	picture, err := os.Create(*out)
	if err != nil {
		return err
	}
	if err := drawAll(picture, drawn, begin, to, q.step()); err != nil {
		return errors.Join(err, picture.Close())
	}
	return picture.Close()
}
