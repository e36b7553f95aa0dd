package e2e_test

import (
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// freeAddr returns an unused address.
func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := testenv.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// answer is the answer of an endpoint.
type answer struct {
	code int
	body string
}

// get asks an endpoint, once it listens.
func (p *process) get(path, token string) answer {
	p.t.Helper()
	addr := ""
	for _, v := range p.cmd.Env {
		if port, ok := strings.CutPrefix(v, "PORT="); ok {
			addr = "127.0.0.1:" + port
		}
		if given, ok := strings.CutPrefix(v, "WORKER_DIAGNOSTICS_ADDR="); ok {
			addr = given
		}
	}
	request, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+addr+path, http.NoBody)
	if err != nil {
		p.t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	request.Close = true // no connection outlives the test
	var response *http.Response
	testenv.Eventually(p.t, "the endpoints are served", func() bool {
		response, err = http.DefaultClient.Do(request) //nolint:bodyclose // It is closed below.
		return err == nil
	})
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return answer{response.StatusCode, strings.TrimSpace(string(body))}
}

// metric returns the sum of a metric's values over its labels.
func (p *process) metric(name string) (sum float64) {
	p.t.Helper()
	for _, s := range parseMetrics(p.t, p.get("/metrics", "").body) {
		if s.name == name {
			sum += s.value
		}
	}
	return sum
}

// sample is one line of a scrape.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

// parseMetrics reads the values of the worker's own metrics.
func parseMetrics(t *testing.T, text string) []sample {
	t.Helper()
	var all []sample
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "telemetry_relay_") {
			continue
		}
		head, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, labels, _ := strings.Cut(strings.TrimSuffix(head, "}"), "{")
		s := sample{name: name, labels: map[string]string{}}
		for pair := range strings.SplitSeq(labels, ",") {
			if key, v, ok := strings.Cut(pair, "="); ok {
				s.labels[key] = strings.Trim(v, `"`)
			}
		}
		var err error
		if s.value, err = strconv.ParseFloat(value, 64); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// eventuallyAnswers waits until an endpoint answers with a status.
func (p *process) eventuallyAnswers(path, token string, code int) answer {
	p.t.Helper()
	var a answer
	testenv.Eventually(p.t, path+" answers "+strconv.Itoa(code), func() bool {
		a = p.get(path, token)
		return a.code == code
	})
	return a
}

func TestHealthEndpointsFollowTheDependencies(t *testing.T) {
	for _, secret := range []string{"", "d1agnostics"} {
		t.Run("secret="+secret, func(t *testing.T) {
			h := newEnv(t)
			_, port, err := net.SplitHostPort(freeAddr(t))
			h.must(err)
			p := h.start(continuous, "PORT="+port, "DIAGNOSTICS_SECRET="+secret)
			bearer := ""
			if secret != "" {
				bearer = "Bearer " + secret
			}
			p.eventuallyAnswers("/-/readyz", bearer, http.StatusOK)
			for path, want := range map[string]answer{
				"/-/version": {http.StatusOK, buildVersion},
				"/-/healthz": {http.StatusOK, "ok"},
				"/-/readyz":  {http.StatusOK, "ok"},
			} {
				if got := p.get(path, bearer); got != want {
					t.Errorf("%s: got %v, want %v", path, got, want)
				}
			}
			if got := p.get("/debug/pprof/", bearer).code; got != http.StatusOK {
				t.Errorf("/debug/pprof/: got %d", got)
			}
			if got := p.get("/nothing", bearer).code; got != http.StatusNotFound {
				t.Errorf("/nothing: got %d", got)
			}
			if secret != "" {
				for _, path := range []string{"/-/healthz", "/-/readyz", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline"} {
					for _, wrong := range []string{"", "Bearer wrong", "Bearer ", secret, "Basic " + secret} {
						if got := p.get(path, wrong); got.code != http.StatusUnauthorized {
							t.Errorf("%s with %q: got %v, want 401", path, wrong, got)
						}
					}
				}
				for _, path := range []string{"/-/version", "/metrics"} {
					if got := p.get(path, "").code; got != http.StatusOK {
						t.Errorf("%s needs no secret, got %d", path, got)
					}
				}
			}

			// An outage elsewhere must not restart the container.
			h.gateway.Stop()
			h.publish(event(1))
			down := p.eventuallyAnswers("/-/readyz", bearer, http.StatusInternalServerError)
			contains(t, down.body, "gateway")
			if got := p.get("/-/healthz", bearer); got.code != http.StatusOK {
				t.Errorf("/-/healthz in an outage: got %v", got)
			}
			if got := p.metric("telemetry_relay_gateway_available"); got != 0 {
				t.Errorf("gateway_available is %v in an outage", got)
			}
			h.must(h.gateway.Restart(t.Context()))
			p.eventuallyAnswers("/-/readyz", bearer, http.StatusOK)
			if got := p.metric("telemetry_relay_gateway_available"); got != 1 {
				t.Errorf("gateway_available is %v after an outage", got)
			}
			testenv.Eventually(t, "the event is recorded", func() bool { return h.recorded()[eventID(1)] == 1 })
			got := p.stop(syscall.SIGTERM).exits(0)
			if secret != "" {
				omits(t, got.stderr+got.stdout, secret)
			}
		})
	}
}

// TestStartupProbePassesBeforeTheGateway asks before the worker has reached the gateway:
// the startup probe must pass.
func TestStartupProbePassesBeforeTheGateway(t *testing.T) {
	h := newEnv(t)
	h.gateway.Stop()
	p := h.start(continuous, "WORKER_DIAGNOSTICS_ADDR="+freeAddr(t))
	p.eventuallyAnswers("/-/healthz", "", http.StatusOK)
	testenv.Eventually(t, "/-/readyz names the gateway", func() bool {
		a := p.get("/-/readyz", "")
		return a.code == http.StatusInternalServerError && strings.Contains(a.body, "gateway")
	})
	p.stop(syscall.SIGTERM).exits(1)
}

// TestTakenPortEndsRun has another process on the port.
func TestTakenPortEndsRun(t *testing.T) {
	h := newEnv(t)
	got := h.run(continuous, "WORKER_DIAGNOSTICS_ADDR="+h.gateway.Addr()).exits(1)
	contains(t, got.stderr, "WORKER_DIAGNOSTICS_ADDR", h.gateway.Addr())
	got.sums(summary{Ended: "error"})
}

// TestEveryMetricIsServed compares every metric after a run with events of all kinds.
func TestEveryMetricIsServed(t *testing.T) {
	h := newEnv(t)
	h.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
		return gatewayserver.Fault{Omit: []string{eventID(poison)}}
	})
	// All series that can be known are there before the first event.
	h.publish(events(0, 20)...)
	h.publish(events(0, 5)...)
	for i := range 5 {
		// Publishers can make up names of services; none may become a label.
		h.publish(named(string(invalid(30+i).GetData()), "service_id", "made-up-"+strconv.Itoa(i)))
	}
	h.publish(message("[]"), named("{}", "service_id", "sams"))
	p := h.start(continuous, "WORKER_DIAGNOSTICS_ADDR="+freeAddr(t), "WORKER_REJECT_AFTER=2")
	// The verdict on an event that is left out needs other events that are recorded.
	more := 0.0
	testenv.Eventually(t, "what is left out is judged", func() bool {
		if p.metric("telemetry_relay_events_rejected_total") == 8 {
			return true
		}
		h.publish(event(1000 + int(more)))
		more++
		return false
	})
	testenv.Eventually(t, "everything is settled", func() bool {
		return p.metric("telemetry_relay_events_submitted_total") == 19+more &&
			p.metric("telemetry_relay_events_duplicate_total") == 5 && p.metric("telemetry_relay_events_in_flight") == 0
	})
	samples := parseMetrics(t, p.get("/metrics", "").body)
	values := map[string]float64{}
	for _, s := range samples {
		key := s.name
		for _, label := range slices.Sorted(maps.Keys(s.labels)) {
			key += " " + label + "=" + s.labels[label]
		}
		values[key] = s.value
	}
	want := map[string]float64{
		"telemetry_relay_events_received_total service=cody-gateway":                          26 + more,
		"telemetry_relay_events_received_total service=sams":                                  1,
		"telemetry_relay_events_received_total service=other":                                 5,
		"telemetry_relay_events_submitted_total service=cody-gateway":                         19 + more,
		"telemetry_relay_events_duplicate_total service=cody-gateway":                         5,
		"telemetry_relay_events_rejected_total reason=unknown_service service=other":          5,
		"telemetry_relay_events_rejected_total reason=malformed_payload service=cody-gateway": 1,
		"telemetry_relay_events_rejected_total reason=invalid_event service=sams":             1,
		"telemetry_relay_events_rejected_total reason=gateway_rejected service=cody-gateway":  1,
		"telemetry_relay_events_released_total":                                               0,
		"telemetry_relay_events_in_flight":                                                    0,
		"telemetry_relay_oldest_received_age_seconds":                                         0,
		"telemetry_relay_books_difference_events":                                             0,
		"telemetry_relay_events_undecided":                                                    0,
		"telemetry_relay_event_delivery_seconds_count":                                        19 + more,
		"telemetry_relay_dead_letter_publishes_total result=ok":                               8,
		"telemetry_relay_gateway_available":                                                   1,
		"telemetry_relay_token_fetches_total result=ok":                                       1,
	}
	for key, value := range want {
		if got, ok := values[key]; !ok || got != value {
			t.Errorf("%s is %v, want %v", key, got, value)
		}
	}
	if values["telemetry_relay_events_retried_total cause=left_out"] < 2 {
		t.Error("what was left out was not tried again")
	}
	batches := values["telemetry_relay_batch_events_count"]
	if batches < 2 || values["telemetry_relay_batch_events_sum"] < 21+more || values["telemetry_relay_batch_bytes_count"] != batches {
		t.Errorf("%v batches of %v events", batches, values["telemetry_relay_batch_events_sum"])
	}
	// The probe at the start is a stream, too.
	if n := values["telemetry_relay_submissions_total code=OK"]; n != batches+1 {
		t.Errorf("%v streams ended well, want %v", n, batches+1)
	}
	if n := values["telemetry_relay_submission_seconds_count"]; n < batches {
		t.Errorf("submission_seconds counts %v", n)
	}
	if at := values["telemetry_relay_last_success_timestamp_seconds"]; time.Since(time.Unix(int64(at), 0)) > time.Minute {
		t.Errorf("last_success_timestamp_seconds is %v", at)
	}

	// Every label is one of a bounded set.
	labels := map[string]map[string]bool{}
	for _, s := range samples {
		for key, value := range s.labels {
			if labels[key] == nil {
				labels[key] = map[string]bool{}
			}
			labels[key][value] = true
		}
	}
	delete(labels, "le") // buckets
	wantLabels := map[string]map[string]bool{
		"service": {
			"cody-analytics": true, "cody-gateway": true, "dropper": true, "enterprise-portal": true,
			"pings": true, "sams": true, "strict": true, "other": true,
		},
		"reason": {
			"unsupported_schema": true, "unknown_service": true, "malformed_payload": true, "invalid_event": true,
			"policy_violation": true, "oversized": true, "gateway_rejected": true, "gateway_refused": true,
			"drained": true, "deadline": true, "signal": true, "error": true, // of a run's end
			"latency": true, "failed": true, "outage": true, "unused": true, "refused": true, // of a fall of the limit of streams
		},
		"cause":  {"left_out": true, "failed": true, "refused": true, "exhausted": true, "sams": true, "credentials": true, "unusable": true},
		"result": {"ok": true, "error": true, "refused": true, "too_large": true, "dropped": true, "recorded": true, "rejected": true, "duplicate": true},
		"code": {
			"OK": true, // of submissions
			// Of streams from Pub/Sub.
			"NotFound": true, "PermissionDenied": true, "Unauthenticated": true, "FailedPrecondition": true, "Unimplemented": true, "InvalidArgument": true,
		},
		// Of the worker itself.
		"mode": {"continuous": true}, "version": {buildVersion: true},
	}
	if diff := cmp.Diff(wantLabels, labels); diff != "" {
		t.Errorf("labels differ (-want +got):\n%s", diff)
	}
	p.stop(syscall.SIGTERM).exits(0)
}

// TestMetricsExistFromTheStart asks a worker without events, because an alert can only use
// metrics that exist from the start.
func TestMetricsExistFromTheStart(t *testing.T) {
	h := newEnv(t)
	p := h.startReady(continuous)
	body := p.get("/metrics", "").body
	for _, name := range []string{
		"events_released_total", "events_in_flight", "event_delivery_seconds_bucket", "batch_events_bucket", "batch_bytes_bucket",
		"submissions_total", "submission_seconds_bucket", "gateway_available", "token_fetches_total", "oldest_received_age_seconds",
		"last_success_timestamp_seconds",
	} {
		contains(t, body, "\ntelemetry_relay_"+name)
	}
	contains(t, body, "go_goroutines", "process_cpu_seconds_total")
	p.stop(syscall.SIGTERM).exits(0)
}
