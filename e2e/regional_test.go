package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/local/pubsubserver"
)

// TestRegionalEndpoint: PUBSUB_ENDPOINT is where every command finds Pub/Sub, with
// TLS and with credentials, as it would find the global one.
func TestRegionalEndpoint(t *testing.T) {
	h := newHouse(t)
	server, err := pubsubserver.Start(t.Context(), pubsubserver.Options{})
	h.must(err)
	t.Cleanup(func() { h.check(server.Close()) })
	front := newTLSFront(t, server.Addr())
	environ := h.environ("PUBSUB_EMULATOR_HOST=", "PUBSUB_ENDPOINT="+front.endpoint, "SSL_CERT_FILE="+front.roots,
		"GOOGLE_APPLICATION_CREDENTIALS="+serviceAccountKey(t), "WORKER_DRAIN_IDLE=2s")
	// used makes sure that the command was the one who spoke to the endpoint.
	used := func(command string) {
		t.Helper()
		for _, name := range front.taken() {
			if name != "localhost" {
				t.Errorf("%s asked for the server %q", command, name)
			}
		}
	}

	execute(t, environ, nil, "setup", "--yes").exits(0)
	used("setup")
	execute(t, environ, nil, "check").exits(0)
	used("check")
	lines := `{"attributes":{"service_id":"sams"},"data":{"feature":"sams.user","action":"created"}}` + "\n" + `{"data":{}}` + "\n"
	execute(t, environ, strings.NewReader(lines), "publish", "--as-is").exits(0)
	used("publish")
	execute(t, environ, nil, "run").exits(0).sums(summary{Received: 2, Submitted: 1, Rejected: map[string]int{"unknown_service": 1}, Ended: "drained"})
	used("run")
	contains(t, execute(t, environ, nil, "dlq", "stats").exits(0).stdout, "unknown_service")
	used("dlq stats")
	execute(t, environ, nil, "dlq", "replay", "--yes", "--no-check").exits(0)
	used("dlq replay")

	for _, args := range [][]string{{"run"}, {"publish"}, {"setup"}, {"check"}, {"dlq", "stats"}} {
		got := execute(t, append(environ, "PUBSUB_EMULATOR_HOST="+server.Addr()), strings.NewReader(""), args...).exits(2)
		contains(t, got.stderr, "PUBSUB_ENDPOINT: is set together with PUBSUB_EMULATOR_HOST")
	}
}

// TestCredentialsAreMissing: credentials may be there a little later than the
// worker; without any the run ends, and says which are expected.
func TestCredentialsAreMissing(t *testing.T) {
	t.Run("until they come", func(t *testing.T) {
		h := newHouse(t)
		server, err := pubsubserver.Start(t.Context(), pubsubserver.Options{})
		h.must(err)
		t.Cleanup(func() { h.check(server.Close()) })
		for _, err := range []error{
			server.CreateTopic(h.topic(topicID)), server.CreateTopic(h.topic(dlqID)), server.CreateSubscription(h.subscription(subID), h.topic(topicID)),
		} {
			h.must(err)
		}
		front := newTLSFront(t, server.Addr())
		key := filepath.Join(t.TempDir(), "later.json")
		p := start(t, h.environ("PUBSUB_EMULATOR_HOST=", "PUBSUB_ENDPOINT="+front.endpoint, "SSL_CERT_FILE="+front.roots,
			"GOOGLE_APPLICATION_CREDENTIALS="+key), nil, "run")
		p.says("missing; waiting for it")
		h.must(os.Rename(serviceAccountKey(t), key))
		p.wait().exits(0).sums(summary{Ended: "drained"})
	})
	t.Run("for good", func(t *testing.T) {
		h := newHouse(t)
		got := execute(t, h.environ("PUBSUB_EMULATOR_HOST=", "GOOGLE_APPLICATION_CREDENTIALS="+filepath.Join(t.TempDir(), "none.json")), nil, "run").exits(1)
		contains(t, got.stderr, "missing; waiting for it", "no credentials for Google Cloud", "GOOGLE_APPLICATION_CREDENTIALS")
		got.sums(summary{Ended: "error"})
		if got.took < 15*time.Second || got.took > 25*time.Second {
			t.Errorf("it ended after %v, want 15s", got.took)
		}
	})
	t.Run("until the end", func(t *testing.T) {
		h := newHouse(t)
		p := start(t, h.environ("PUBSUB_EMULATOR_HOST=", "GOOGLE_APPLICATION_CREDENTIALS="+filepath.Join(t.TempDir(), "none.json")), nil, "run")
		p.says("missing; waiting for it")
		p.stop(syscall.SIGTERM).exits(0).sums(summary{Ended: "signal"})
	})
}

// tlsFront is an endpoint// tlsFront is an endpoint with TLS before a server without.
type tlsFront struct {
	endpoint string // localhost and a port
	roots    string // the file with the certificate

	mu    sync.Mutex
	names []string // server names that clients asked for
}

// newTLSFront starts one.
func newTLSFront(t *testing.T, server string) *tlsFront {
	t.Helper()
	f := &tlsFront{roots: filepath.Join(t.TempDir(), "roots.pem")}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate(t, f.roots)}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.names = append(f.names, hello.ServerName)
			return nil, nil // the config stays
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	f.endpoint = net.JoinHostPort("localhost", port)
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			work.Go(func() { join(conn, server) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		work.Wait() // the worker has ended, and with it its connections
	})
	return f
}

// taken returns the server names that were asked for since the last time; there
// must be some.
func (f *tlsFront) taken() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := f.names
	f.names = nil
	if len(names) == 0 {
		return []string{"(nobody came)"}
	}
	return names
}

// join passes bytes on between a connection and a server until either side ends.
func join(conn net.Conn, server string) {
	other, err := net.Dial("tcp", server)
	if err != nil {
		_ = conn.Close()
		return
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{conn, other}, {other, conn}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = conn.Close()
			_ = other.Close()
		})
	}
	both.Wait()
}

// certificate makes one for localhost, and writes it to a file.
func certificate(t *testing.T, file string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serviceAccountKey writes the key of an account that does not exist. The client
// signs its tokens itself, so that nobody is asked for any.
func serviceAccountKey(t *testing.T) (file string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "p", "private_key_id": "1", "client_id": "1",
		"client_email": "worker@p.iam.gserviceaccount.com", "token_uri": "http://127.0.0.1:1/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
