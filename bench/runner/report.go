package runner

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// report prints the medians of a scenario's cases, relative to the first one in
// the same run, and to the same case of earlier measurements.
func report(w io.Writer, s scenario, measured, before []Measurement) {
	fmt.Fprintf(w, "\n%s: %s\n", s.name, s.about)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "case\truns\tevents/s\tCPU-s per 1 M\tmin–max\t× first\tCPU-s\twall s\tpeak MiB\tfirst recorded ms\tp50 ms\tp99 ms\tRPCs per 1,000\tstreams at once\t")
	if len(before) > 0 {
		fmt.Fprint(t, "CPU before\tchange\t")
	}
	fmt.Fprintln(t)
	var names []string
	for _, m := range measured {
		if !slices.Contains(names, m.Case) {
			names = append(names, m.Case)
		}
	}
	cpu := func(m Measurement) float64 { return m.CPUPerMillion }
	first := values(of(measured, s.name, names[0]), cpu)
	for _, name := range names {
		all := of(measured, s.name, name)
		now := median(all, cpu)
		ratios := values(all, cpu)
		for i := range ratios {
			ratios[i] /= first[i]
		}
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.2f\t%.2f–%.2f\t%.2f\t%.2f\t%.1f\t%.0f\t%.0f\t%.1f\t%.1f\t%.1f\t%.0f\t", name, len(all),
			median(all, func(m Measurement) float64 { return m.EventsPerSecond }),
			now, slices.Min(values(all, cpu)), slices.Max(values(all, cpu)), middle(ratios),
			median(all, func(m Measurement) float64 { return m.CPU }),
			median(all, func(m Measurement) float64 { return m.Wall }),
			median(all, func(m Measurement) float64 { return m.PeakMB }),
			median(all, func(m Measurement) float64 { return m.FirstRecorded }),
			median(all, func(m Measurement) float64 { return m.Gateway.P50 }),
			median(all, func(m Measurement) float64 { return m.Gateway.P99 }),
			median(all, func(m Measurement) float64 {
				return float64(m.Pubsub.AckRPCs+m.Pubsub.ModifyRPCs+m.Gateway.Streams) / float64(m.Plan.Events) * 1000
			}),
			median(all, func(m Measurement) float64 { return float64(m.Gateway.MostStreams) }))
		if old := of(before, s.name, name); len(old) > 0 {
			then := median(old, cpu)
			fmt.Fprintf(t, "%.2f\t%+.0f %%\t", then, (now/then-1)*100)
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush() // to the terminal
	for _, m := range measured {
		switch {
		case m.Plan.SteadyCapacity:
			fmt.Fprint(w, shares(m))
		case m.Plan.Capacity > 0:
			fmt.Fprint(w, capacityPhases(m))
		}
	}
}

// of returns the measurements of one case.
func of(all []Measurement, scenario, name string) (found []Measurement) {
	for _, m := range all {
		if m.Scenario == scenario && m.Case == name {
			found = append(found, m)
		}
	}
	return found
}

func values(all []Measurement, value func(Measurement) float64) []float64 {
	v := make([]float64, len(all))
	for i, m := range all {
		v[i] = value(m)
	}
	return v
}

func median(all []Measurement, value func(Measurement) float64) float64 {
	return middle(values(all, value))
}

func middle(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
