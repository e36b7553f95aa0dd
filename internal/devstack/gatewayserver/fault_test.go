package gatewayserver

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

func TestFaultsOfAStream(t *testing.T) {
	f := newFixture(t, Options{})
	f.SetOnStream(func(info StreamInfo) Fault {
		if info.Identity != (Identity{"svc", "dev"}) || info.RequestID != "request" || info.Payload != 0 {
			t.Errorf("%+v", info)
		}
		return Fault{Err: RetryAfter(codes.Unavailable, "come back", 7*time.Second)}
	})
	_, err := f.record(event("1"))
	wantCode(t, err, codes.Unavailable)
	var delay time.Duration
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			delay = info.GetRetryDelay().AsDuration()
		}
	}
	if delay != 7*time.Second {
		t.Errorf("retry after %v", delay)
	}
	f.SetOnStream(func(StreamInfo) Fault { return Fault{Hang: true} })
	ctx, cancel := context.WithTimeout(f.ctx, 50*time.Millisecond)
	defer cancel()
	_, err = f.exchange(ctx, metadataRequest(managed("svc", "dev")))
	wantCode(t, err, codes.DeadlineExceeded)
	f.SetOnStream(func(StreamInfo) Fault { return Fault{Delay: time.Millisecond} })
	_, err = f.record(event("1"))
	must(t, err)
	f.SetOnStream(nil)
	_, err = f.record(event("2"))
	must(t, err)
	wantIDs(t, "recorded", f.recordedIDs(), "1", "2")
}

func TestFaultsOfAPayload(t *testing.T) {
	cut := status.Error(codes.Unavailable, "cut")
	for name, test := range map[string]struct {
		fault     Fault
		want      codes.Code
		succeeded []string
		recorded  []string
	}{
		"none":              {succeeded: []string{"1", "2", "3"}, recorded: []string{"1", "2", "3"}},
		"before recording":  {fault: Fault{Err: cut}, want: codes.Unavailable},
		"before responding": {fault: Fault{Err: cut, Phase: BeforeResponding}, want: codes.Unavailable, recorded: []string{"1", "2", "3"}},
		"after responding":  {fault: Fault{Err: cut, Phase: AfterResponding}, want: codes.Unavailable, succeeded: []string{"1", "2", "3"}, recorded: []string{"1", "2", "3"}},
		"omit one":          {fault: Fault{Omit: []string{"2", "9"}}, succeeded: []string{"1", "3"}, recorded: []string{"1", "3"}},
		"omit all":          {fault: Fault{OmitAll: true}},
		"recorded, omitted": {fault: Fault{Omit: []string{"2"}, RecordOmitted: true}, succeeded: []string{"1", "3"}, recorded: []string{"1", "2", "3"}},
		"delay":             {fault: Fault{Delay: time.Millisecond}, succeeded: []string{"1", "2", "3"}, recorded: []string{"1", "2", "3"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, Options{})
			f.SetOnPayload(func(info StreamInfo, es []*Event) Fault {
				if info.Payload != 1 || info.ID != 1 || len(es) != 3 {
					t.Errorf("%+v", info)
				}
				return test.fault
			})
			got, err := f.record(events("1", "2", "3")...)
			wantCode(t, err, test.want)
			wantIDs(t, "succeeded", got, test.succeeded...)
			wantIDs(t, "recorded", f.recordedIDs(), test.recorded...)
			if got := f.Stats(); got.Received != 3 || got.Recorded != len(test.recorded) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestHangingPayload(t *testing.T) {
	f := newFixture(t, Options{})
	arrived := make(chan struct{})
	f.SetOnPayload(func(StreamInfo, []*Event) Fault {
		close(arrived)
		return Fault{Hang: true}
	})
	s := f.open(f.ctx, metadataRequest(managed("svc", "dev")), eventsRequest(event("1")))
	<-arrived
	if got := f.Stats().Open; got != 1 {
		t.Errorf("%d open", got)
	}
	must(t, f.Close()) // ends what hangs
	must(t, f.Close())
	if _, err := s.Recv(); err == nil {
		t.Error("a response")
	}
	if len(f.Recorded()) != 0 || f.Stats().Open != 0 {
		t.Errorf("%+v", f.Stats())
	}
	if f.Restart(t.Context()) == nil {
		t.Error("restarted after Close")
	}
}

func TestDownServerRefusesStreams(t *testing.T) {
	f := newFixture(t, Options{})
	s := f.open(f.ctx, metadataRequest(managed("svc", "dev")), eventsRequest(event("1")))
	_, err := s.Recv()
	must(t, err)
	f.SetDown(true)
	must(t, s.Send(eventsRequest(event("2"))))
	_, err = s.Recv()
	wantCode(t, err, codes.Unavailable)
	_, err = f.record(event("2"))
	wantCode(t, err, codes.Unavailable)
	f.SetDown(false)
	_, err = f.record(event("3"))
	must(t, err)
	wantIDs(t, "recorded", f.recordedIDs(), "1", "3")
}

func TestStopAndRestart(t *testing.T) {
	f := newFixture(t, Options{})
	_, err := f.record(event("1"))
	must(t, err)
	addr := f.Addr()
	f.Stop()
	f.Stop()
	_, err = f.record(event("2"))
	wantCode(t, err, codes.Unavailable)
	must(t, f.Restart(f.ctx))
	must(t, f.Restart(f.ctx))
	if f.Addr() != addr {
		t.Errorf("now at %s, was at %s", f.Addr(), addr)
	}
	// The client may still wait before it connects again.
	s, err := f.client.RecordEvents(f.ctx, grpc.WaitForReady(true))
	must(t, err)
	must(t, s.Send(metadataRequest(managed("svc", "dev"))))
	must(t, s.Send(eventsRequest(event("3"))))
	_, err = s.Recv()
	must(t, err)
	wantIDs(t, "recorded", f.recordedIDs(), "1", "3")
}

func TestTLS(t *testing.T) {
	// For its certificate only.
	web := httptest.NewTLSServer(http.NotFoundHandler())
	defer web.Close()
	client, ok := web.Client().Transport.(*http.Transport)
	if !ok {
		t.Fatal("no transport")
	}
	pool := client.TLSClientConfig.RootCAs
	f := newFixtureWith(t, Options{TLS: &tls.Config{Certificates: web.TLS.Certificates, MinVersion: tls.VersionTLS12}},
		credentials.NewTLS(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}))
	if got := f.URL(); got != "https://"+f.Addr() {
		t.Error(got)
	}
	_, err := f.record(event("1"))
	must(t, err)
}
