package roster

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"gotong/grid"
	"gotong/grid/identity"
)

func signBody(a actor, domain identity.Domain, body []byte) []byte {
	return identity.Sign(a.node.Private(), domain, body).Encode()
}

// samples are one statement of each kind.
func samples(t testing.TB) (grid.GridID, actor, [][]byte) {
	ann, bob := newActor(t), newActor(t)
	g, genesis := ann.found(t)
	admit := ann.admits(g, bob, link{number: 1})
	remove := signRemove(ann.node, g, after(admit, 1), removal{peer: bob.id(), cuts: map[grid.PeerID]cut{bob.id(): {number: 4, hash: Hash{4}}}})
	disown := signDisown(ann.owner, g, map[grid.PeerID]cut{ann.id(): {number: 1, hash: Hash{1}}})
	return g, ann, [][]byte{genesis, admit, ann.device(t).signDevice(g), remove, disown}
}

func TestStatementsRefuseEveryChange(t *testing.T) {
	g, _, statements := samples(t)
	for _, raw := range statements {
		if _, err := parseStatement(g, raw); err != nil {
			t.Fatal(err)
		}
		for i := range raw {
			changed := bytes.Clone(raw)
			changed[i] ^= 1
			if _, err := parseStatement(g, changed); !errors.Is(err, ErrStatement) {
				t.Fatalf("kind %d, byte %d changed: %v", raw[0], i, err)
			}
		}
		if _, err := parseStatement(grid.GridID{1}, raw); !errors.Is(err, ErrStatement) {
			t.Errorf("kind %d is taken in another grid: %v", raw[0], err)
		}
	}
}

func TestUnknownFieldsAreRefused(t *testing.T) {
	g, ann, statements := samples(t)
	body := protowire.AppendVarint(protowire.AppendTag(bytes.Clone(statements[1][97:]), 99, protowire.VarintType), 1)
	raw := append([]byte{byte(kindAdmit)}, signBody(ann, domains[kindAdmit], body)...)
	if _, err := parseStatement(g, raw); !errors.Is(err, ErrStatement) {
		t.Errorf("unknown field: %v", err)
	}
}

// FuzzParseStatement signs hostile bodies properly, so that they get past the
// signature, and tries them unsigned too.
func FuzzParseStatement(f *testing.F) {
	g, ann, statements := samples(f)
	for _, raw := range statements {
		f.Add(raw[0], raw[97:])
	}
	f.Add(byte(9), []byte{})
	f.Fuzz(func(t *testing.T, k byte, body []byte) {
		for _, raw := range [][]byte{
			append([]byte{k}, body...),
			append([]byte{k}, signBody(ann, domains[kind(k)], body)...),
			append([]byte{k}, identity.Sign(ann.owner, domains[kind(k)], body).Encode()...),
		} {
			s, err := parseStatement(g, raw)
			if err != nil {
				if !errors.Is(err, ErrStatement) {
					t.Fatalf("untyped error %v", err)
				}
				continue
			}
			_, _ = Evaluate(g, [][]byte{statements[0], statements[1], s.raw}) // must not panic
		}
	})
}
