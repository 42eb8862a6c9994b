package identity_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
)

func TestNodeKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.key")
	if _, err := identity.LoadNodeKey(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("missing file: %v", err)
	}
	key, err := identity.LoadOrCreateNodeKey(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := identity.LoadOrCreateNodeKey(path)
	if err != nil || again.PeerID() != key.PeerID() {
		t.Fatalf("read back %v: %v", again.PeerID(), err)
	}
	if !bytes.Equal(again.BoxKey().Bytes(), key.BoxKey().Bytes()) {
		t.Error("the box key changed")
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("files beside the key: %v %v", entries, err)
	}
	if runtime.GOOS == "windows" {
		return // permission bits say nothing there
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.LoadOrCreateNodeKey(path); !errors.Is(err, identity.ErrKeyExposed) {
		t.Errorf("group-readable key: %v", err)
	}
}

func TestNodeKeyFileDamaged(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"empty":   {},
		"garbage": []byte("hello"),
		"ecdsa":   pemBlock("PRIVATE KEY", der),
		"type":    pemBlock("EC PRIVATE KEY", der),
		"der":     pemBlock("PRIVATE KEY", der[:20]),
	} {
		path := filepath.Join(t.TempDir(), "node.key")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := identity.LoadOrCreateNodeKey(path); !errors.Is(err, identity.ErrKeyFile) {
			t.Errorf("%s: %v", name, err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, text) {
			t.Errorf("%s: the file was changed: %v", name, err)
		}
	}
}

// TestCertificateOverTLS shows that each side of a real TLS 1.3 handshake
// learns the other's key, from inside VerifyConnection.
func TestCertificateOverTLS(t *testing.T) {
	server, client := newKey(t), newKey(t)
	seen := make(chan grid.PeerID, 2)
	verify := func(cs tls.ConnectionState) error {
		key, err := identity.PeerKey(cs)
		if err == nil {
			seen <- grid.PeerIDOf(key)
		}
		return err
	}
	config := func(key identity.NodeKey) *tls.Config {
		certificate, err := identity.Certificate(key.Private())
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate},
			ClientAuth: tls.RequireAnyClientCert, InsecureSkipVerify: true, VerifyConnection: verify,
		}
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	deadline := time.Now().Add(time.Minute)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	failed := make(chan error, 1)
	go func() { failed <- tls.Server(a, config(server)).Handshake() }()
	if err := tls.Client(b, config(client)).Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	got := map[grid.PeerID]bool{<-seen: true, <-seen: true}
	if !got[server.PeerID()] || !got[client.PeerID()] {
		t.Errorf("saw %v", got)
	}
}

func TestCertificateIsOnlyTheKey(t *testing.T) {
	key := newKey(t)
	a, err := identity.Certificate(key.Private())
	if err != nil {
		t.Fatal(err)
	}
	b, err := identity.Certificate(key.Private())
	if err != nil || !bytes.Equal(a.Certificate[0], b.Certificate[0]) {
		t.Errorf("two certificates of one key differ: %v", err)
	}
	if name := a.Leaf.Subject.String() + a.Leaf.Issuer.String(); name != "" {
		t.Errorf("it names %q", name)
	}
}

func TestPeerKeyRefuses(t *testing.T) {
	good, err := identity.Certificate(newKey(t).Private())
	if err != nil {
		t.Fatal(err)
	}
	ecdsaKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, certificates := range map[string][]*x509.Certificate{
		"none":   nil,
		"two":    {good.Leaf, good.Leaf},
		"ecdsa":  {{PublicKey: &ecdsaKey.PublicKey}},
		"no key": {{}},
		"short":  {{PublicKey: ed25519.PublicKey("short")}},
	} {
		if _, err := identity.PeerKey(tls.ConnectionState{PeerCertificates: certificates}); !errors.Is(err, identity.ErrCertificate) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
