package preflight

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/provision"
)

// stream looks at the subscription, and makes sure that this did not take long.
func (f *fixture) stream(emulator bool) Finding {
	f.t.Helper()
	began := time.Now()
	got := stream(f.t.Context(), subName, emulator, f.options()...)
	if took := time.Since(began); took > lookTime+lookReturn+15*time.Second {
		f.t.Errorf("it took %v", took)
	}
	if n := f.Stats(subName).Leased; n != 0 && got.Status != provision.Warning {
		f.t.Errorf("%d messages are leased", n)
	}
	return got
}

func (f *fixture) publish(n int) {
	f.t.Helper()
	for range n {
		if _, err := f.Publish(topicName, &pubsubpb.PubsubMessage{Data: []byte("x")}); err != nil {
			f.t.Fatal(err)
		}
	}
}

func wantStream(t *testing.T, got Finding, verdict provision.Verdict, detail, do string) {
	t.Helper()
	if got.Check != "stream" || got.Resource != subName || got.Status != verdict || !strings.HasPrefix(got.Detail, detail) || !strings.Contains(got.Do, do) {
		t.Errorf("got %+v, want %s %q, to do %q", got, verdict, detail, do)
	}
}

func TestStreamIsOpened(t *testing.T) {
	t.Parallel()
	t.Run("empty", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		for _, emulator := range []bool{false, true} {
			wantStream(t, f.stream(emulator), provision.OK, "answered a ping", "")
		}
	})
	t.Run("as run opens it", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		f.stream(false)
		openings := f.Openings(subName)
		if len(openings) != 1 {
			t.Fatalf("%d openings", len(openings))
		}
		first, md := openings[0].Request, openings[0].Metadata
		if first.GetProtocolVersion() != 1 || first.GetClientId() == "" || first.GetMaxOutstandingMessages() != 1 || first.GetStreamAckDeadlineSeconds() != 30 ||
			md.Get("content-type")[0] != "application/grpc" || len(md.Get("x-goog-request-params")) != 1 {
			t.Errorf("opened with %v, %v", first, md)
		}
	})
	t.Run("a backlog", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		f.publish(3)
		got := f.stream(false)
		if got.Status != provision.OK || !strings.HasSuffix(got.Detail, "brought one message, given back at once") {
			t.Errorf("got %+v", got)
		}
		// It is there for others, at once.
		if n := f.pull(t, time.Second); n != 3 {
			t.Errorf("%d of 3 messages are there", n)
		}
	})
	t.Run("refused once", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		f.RefuseStreams(1, status.Error(codes.PermissionDenied, "not yet"))
		wantStream(t, f.stream(false), provision.OK, "answered a ping, after an opening that failed: PermissionDenied: not yet", "")
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		f.RefuseStreams(-1, status.Error(codes.PermissionDenied, "User not authorized\nto perform this action."))
		for _, emulator := range []bool{false, true} {
			wantStream(t, f.stream(emulator), provision.Failure, "refused: PermissionDenied: User not authorized to", "roles/pubsub.subscriber")
		}
	})
	t.Run("behind a front that knows no streams", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		addr := notFoundFor(t, "/StreamingPull", f.Addr())
		got := PubSub(t.Context(), needs(), plain(addr)...)
		for _, g := range got {
			if g.Check == "stream" {
				wantStream(t, g, provision.Failure, "refused: Unimplemented: unexpected HTTP status code received from server: 404", "PUBSUB_ENDPOINT and proxies")
			} else if g.Check == "subscription" && g.Status != provision.OK {
				t.Errorf("the front lets other requests pass, and yet %+v", g)
			}
		}
	})
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		f.publish(1)
		f.SilenceOpenings(-1)
		wantStream(t, f.stream(false), provision.Failure, "no answer in 6s", "check the network, PUBSUB_ENDPOINT")
		wantStream(t, f.stream(true), provision.OK, "was accepted, and did not answer a ping, as emulators do not", "")
	})
	t.Run("silent once", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		f.SilenceOpenings(1)
		wantStream(t, f.stream(false), provision.OK, "answered a ping", "")
	})
	t.Run("down", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		f.RefuseStreams(-1, status.Error(codes.Unavailable, "down"))
		wantStream(t, f.stream(false), provision.Failure, "no answer in 6s: Unavailable: down", "check the network, PUBSUB_ENDPOINT")
	})
	t.Run("a message that cannot be given back", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		f.publish(1)
		f.fail(map[string]error{"ModifyAckDeadline": status.Error(codes.Unavailable, "down")})
		wantStream(t, f.stream(false), provision.Warning, "brought one message, which Pub/Sub did not take back within 3s", "run this again")
	})
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		f.publish(1)
		ctx, cancel := context.WithCancel(t.Context())
		f.SetFault(func(method string, _ any) error {
			if method == "StreamingPull.Send" {
				cancel()
			}
			return nil
		})
		stream(ctx, subName, false, f.options()...)
		if n := f.pull(t, time.Second); n != 1 {
			t.Error("the message is not there")
		}
	})
}

// pull asks for messages that others may have, and returns how many came in time.
func (f *fixture) pull(t *testing.T, within time.Duration) (n int) {
	t.Helper()
	client, err := pubsub.NewSubscriptionAdminClient(t.Context(), f.options()...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for n < 3 {
		response, err := client.Pull(ctx, &pubsubpb.PullRequest{Subscription: subName, MaxMessages: 10})
		if err != nil {
			return n
		}
		n += len(response.GetReceivedMessages())
	}
	return n
}

// notFoundFor starts a front that answers requests for a method with HTTP 404, and
// passes on all others.
func notFoundFor(t *testing.T, method, server string) (addr string) {
	t.Helper()
	h2c := &http.Protocols{}
	h2c.SetUnencryptedHTTP2(true)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: server})
	transport := &http.Transport{Protocols: h2c}
	proxy.Transport = transport
	front := &http.Server{Protocols: h2c, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, method) {
			http.NotFound(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	})}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = front.Serve(l)
	}()
	t.Cleanup(func() {
		front.Close()
		<-done
		transport.CloseIdleConnections()
	})
	return l.Addr().String()
}
