package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// querier asks a Prometheus.
type querier struct {
	url       string
	from, to  time.Time
	variables *strings.Replacer
}

// line is one series.
type line struct {
	name string
	at   []time.Time
	y    []float64
}

// parts are the pieces between which nothing was there for more than a step.
func (l line) parts(step time.Duration) iter.Seq[line] {
	return func(yield func(line) bool) {
		begin := 0
		for i := range l.at {
			if i+1 == len(l.at) || l.at[i+1].Sub(l.at[i]) > step*3/2 {
				if !yield(line{l.name, l.at[begin : i+1], l.y[begin : i+1]}) {
					return
				}
				begin = i + 1
			}
		}
	}
}

// steps is how many points a line has.
const steps = 240

var placeholder = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

// panel asks all queries of a panel.
func (q querier) panel(ctx context.Context, p panel) (all []line, err error) {
	for _, t := range p.Targets {
		var response struct {
			Error string `json:"error"`
			Data  struct {
				Result []struct {
					Metric map[string]string    `json:"metric"`
					Values [][2]json.RawMessage `json:"values"`
				} `json:"result"`
			} `json:"data"`
		}
		if err := q.get(ctx, q.variables.Replace(t.Expr), &response); err != nil {
			return nil, err
		}
		if response.Error != "" {
			return nil, fmt.Errorf("%s: %s", t.Expr, response.Error)
		}
		for _, r := range response.Data.Result {
			l := line{name: placeholder.ReplaceAllStringFunc(t.LegendFormat, func(s string) string {
				return r.Metric[placeholder.FindStringSubmatch(s)[1]]
			})}
			for _, v := range r.Values {
				var at float64
				var text string
				if err := json.Unmarshal(v[0], &at); err != nil {
					return nil, err
				}
				if err := json.Unmarshal(v[1], &text); err != nil {
					return nil, err
				}
				y, err := strconv.ParseFloat(text, 64)
				if err != nil {
					return nil, err
				}
				if !math.IsNaN(y) && !math.IsInf(y, 0) {
					l.at, l.y = append(l.at, time.UnixMilli(int64(at*1000))), append(l.y, y)
				}
			}
			if len(l.y) > 0 {
				all = append(all, l)
			}
		}
	}
	return all, nil
}

// step is the time between two points.
func (q querier) step() time.Duration {
	return max(time.Second, (q.to.Sub(q.from) / steps).Round(100*time.Millisecond))
}

func (q querier) get(ctx context.Context, expr string, into any) error {
	address := q.url + "/api/v1/query_range?" + url.Values{
		"query": {expr}, "start": {q.from.Format(time.RFC3339)}, "end": {q.to.Format(time.RFC3339)},
		"step": {strconv.FormatFloat(q.step().Seconds(), 'f', 3, 64)},
	}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	return json.NewDecoder(response.Body).Decode(into)
}
