// Package tlsfront puts an endpoint with TLS before a server without it, so that tests can
// use a regional endpoint of Pub/Sub with credentials.
package tlsfront

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
	"sync"
	"testing"
	"time"
)

// Front is an endpoint with TLS. It passes on the bytes that it decrypts.
type Front struct {
	// Endpoint is localhost and a port.
	Endpoint string
	// Roots is the file with the certificate, for SSL_CERT_FILE.
	Roots string

	mu    sync.Mutex // guards names
	names []string
}

// Start starts a front before the server at an address, host:port, until the test
// ends. The clients must have ended by then.
func Start(t testing.TB, server string) *Front {
	t.Helper()
	f := &Front{Roots: filepath.Join(t.TempDir(), "roots.pem")}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate(t, f.Roots)}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
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
	f.Endpoint = net.JoinHostPort("localhost", port)
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			work.Go(func() { join(t, conn, server) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close() // it is in no state to fail
		work.Wait()
	})
	return f
}

// Names returns the server names that clients have asked for since the last call.
func (f *Front) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := f.names
	f.names = nil
	return names
}

// join passes bytes on between a connection and a server until either side ends.
func join(t testing.TB, conn net.Conn, server string) {
	other, err := new(net.Dialer).DialContext(t.Context(), "tcp", server)
	if err != nil {
		_ = conn.Close() // the client gets that as its error
		return
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{conn, other}, {other, conn}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // either side ends it
			_ = conn.Close()
			_ = other.Close()
		})
	}
	both.Wait()
}

// certificate makes one for localhost, and writes it to a file.
func certificate(t testing.TB, file string) tls.Certificate {
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

// ServiceAccountKey writes the key of an account that does not exist, for
// GOOGLE_APPLICATION_CREDENTIALS. A client signs its tokens itself, so that nobody
// is asked for any, and a front checks none.
func ServiceAccountKey(t testing.TB) (file string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{ //nolint:gosec // the key was made here, and nobody takes it
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
