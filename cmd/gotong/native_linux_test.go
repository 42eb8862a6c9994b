package main

import (
	"context"
	"os"
	"testing"

	"gotong/grid/localgrid"
)

// needBwrap skips the test where a peer could not run commands, unless
// REQUIRE_BWRAP is set.
func needBwrap(ctx context.Context, t *testing.T, p *localgrid.Peer) {
	t.Helper()
	var found struct {
		Checks []struct {
			Name, Why string
			OK        bool
		}
	}
	_ = p.JSON(ctx, &found, "doctor") // exit code 1 if something else is wrong here
	for _, c := range found.Checks {
		switch {
		case c.Name != "native commands":
		case c.OK:
			return
		case os.Getenv("REQUIRE_BWRAP") == "":
			t.Skip(c.Why)
		default:
			t.Fatal(c.Why)
		}
	}
	t.Fatalf("doctor does not tell of native commands: %+v", found)
}

// TestBwrapCommandsOfTheMachine: ordinary commands by run --native and by a job
// file, up to their results, on the machines of friends that allow them.
func TestBwrapCommandsOfTheMachine(t *testing.T) {
	ctx := testContext(t)
	g := newGridWith(t, []string{"GOTONG_DONATE_NATIVE=members"})
	you, _ := grow(ctx, t, g, 2)
	needBwrap(ctx, t, you)
	lines, err := run(ctx, t, you, "--native", "--", "sh", "-c", "echo \"$1\" | tr a-z A-Z", "sh", "{}", ":::", "one", "two")
	if err != nil || len(lines) != 3 || lines[0].Stdout != "ONE\n" || lines[1].Stdout != "TWO\n" {
		t.Errorf("%+v, %v", lines, err)
	}
	file := jobDir(t, `
steps:
- name: upper
  runtime: native
  args: [sh, -c, 'tr a-z A-Z <"$1" | tee /out/upper; echo seen >&2', sh, '{}']
  items: {glob: texts/*, stage: true}
  outputs: true
- name: sum
  runtime: native
  args: [sh, -c, 'cat /in/upper/*/upper | wc -c']
  needs: [upper]
`, map[string]string{"texts/a": "of a\n", "texts/b": "of bb\n"})
	id := submit(ctx, t, you, file)
	must(t, you.JSON(ctx, nil, "job", "wait", id))
	wantResults(ctx, t, you, id, map[string]string{
		"upper/%2Fin%2Ftexts%2Fa/stdout": "OF A\n", "upper/%2Fin%2Ftexts%2Fb/out/upper": "OF BB\n",
		"upper/%2Fin%2Ftexts%2Fb/stderr": "seen\n", "sum/0/stdout": "11\n",
	})
	var why struct {
		Matching int
		Peers    []struct{ Reasons []string }
	}
	id = submit(ctx, t, you, jobDir(t, "steps:\n- runtime: native\n  args: [no-such-command]\n", map[string]string{}))
	must(t, you.JSON(ctx, &why, "job", "why", id))
	if why.Matching != 0 || len(why.Peers) != 3 {
		t.Errorf("%+v", why)
	}
	must(t, you.JSON(ctx, nil, "job", "cancel", id))
}
