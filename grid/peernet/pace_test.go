package peernet_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"gotong/grid/peernet"
)

// TestLimit: bytes go at the rate that was set, either way, while small calls
// on the same connection pass; a limit that is lifted no longer holds.
func TestLimit(t *testing.T) {
	const total, rate = 5 << 20, 512 << 10
	for name, set := range map[string]func(ann, bob *peernet.Net, rate uint64){
		"up":   func(ann, _ *peernet.Net, rate uint64) { ann.Limit(rate, 0) },
		"down": func(_, bob *peernet.Net, rate uint64) { bob.Limit(0, rate) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := newWorld(t).members("ann", "bob")
				ann, bob := all[0], all[1]
				serve(t, bob.Net, openRules(), &echoServer{})
				clients := serve(t, ann.Net, openRules(), &echoServer{})
				transfer := func() time.Duration {
					stream := openPipe(t.Context(), t, clients, bob.Self())
					begin := time.Now()
					sent := make(chan error, 1)
					go func() {
						for range total / (64 << 10) {
							if err := stream.SendMsg(wrapperspb.Bytes(make([]byte, 64<<10))); err != nil {
								sent <- err
								return
							}
						}
						sent <- stream.CloseSend()
					}()
					for range total / (64 << 10) {
						if err := stream.RecvMsg(new(bytesValue)); err != nil {
							t.Fatal(err)
						}
					}
					if err := <-sent; err != nil {
						t.Error(err)
					}
					return time.Since(begin)
				}
				if took := transfer(); took > time.Second {
					t.Errorf("without a limit it took %v", took)
				}
				set(ann.Net, bob.Net, rate)
				slowest := make(chan time.Duration, 1)
				go func() {
					var worst time.Duration
					for range 8 {
						time.Sleep(time.Second)
						begin := time.Now()
						if _, err := call(t.Context(), clients, bob.Self(), methodEcho, []byte("x")); err != nil {
							t.Error(err)
						}
						worst = max(worst, time.Since(begin))
					}
					slowest <- worst
				}()
				if took, want := transfer(), total/rate*time.Second; took < want-time.Second || took > want+want/10+time.Second {
					t.Errorf("%d bytes took %v, want %v", total, took, want)
				}
				worst := <-slowest
				t.Logf("slowest call %v", worst)
				if worst > 2*time.Second {
					t.Errorf("a small call took %v", worst)
				}
				set(ann.Net, bob.Net, 0)
				if took := transfer(); took > time.Second {
					t.Errorf("with the limit lifted it took %v", took)
				}
			})
		})
	}
}
