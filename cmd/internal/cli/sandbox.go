package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"gotong/tasks/probes"
	"gotong/tasks/sandbox"
)

func (a *app) sandboxCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "sandbox",
		Short:   "See for yourself what a hostile program can do here",
		Example: "  gotong sandbox test",
		Args:    exactArgs(0),
	}
	c.AddCommand(a.sandboxTestCommand())
	return c
}

func (a *app) sandboxTestCommand() *cobra.Command {
	var without []string
	c := &cobra.Command{
		Use:   "test",
		Short: "Run hostile programs in the sandbox and report whether any gets through",
		Long: `Test runs hostile programs on this machine as a friend's task would run, and has a
program inside a locked-down sandbox process try what one that broke out of its
engine might: reach the peer's key, files, memory and sockets, start processes, make
new machine code. It needs no running peer and touches nothing of one; what is
attacked is made for the purpose. One line for each: refused or not, and how. The exit
code is 1 if anything gets through.

--without leaves layers out of the second part, to see that what they stop is
noticed: ` + strings.Join(sandbox.Removable, ", ") + `.`,
		Example: "  gotong sandbox test\n  gotong sandbox test --json\n  gotong sandbox test --without seccomp,landlock",
		Args:    exactArgs(0),
	}
	c.Flags().StringSliceVar(&without, "without", nil, "layers to leave out, to see the test fail")
	c.RunE = func(c *cobra.Command, _ []string) error {
		for _, name := range without {
			if !sandbox.MayLeaveOut(name) {
				return usageError(c, fmt.Errorf("layer %q cannot be left out; these can: %s", name, strings.Join(sandbox.Removable, ", ")))
			}
		}
		summary, err := probes.Run(c.Context(), probes.Config{Without: without}, a.printProbe)
		if err != nil {
			return &failure{code: exitFailed, what: "this machine's sandbox could not be tested: " + err.Error(), next: "gotong doctor", cause: err}
		}
		return a.printProbes(summary)
	}
	return c
}

func (a *app) printProbe(p probes.Probe) {
	if a.json {
		a.printJSON(struct {
			Type    string `json:"type"`
			Name    string `json:"name"`
			Refused bool   `json:"refused"`
			How     string `json:"how"`
		}{"probe", p.Name, p.Refused, p.How})
		return
	}
	verdict := "refused"
	if !p.Refused {
		verdict = "THROUGH"
	}
	fmt.Fprintf(a.stdout, "%s  %s: %s\n", verdict, p.Name, printable(p.How))
}

type layerJSON struct {
	Name     string `json:"name"`
	Active   bool   `json:"active"`
	Required bool   `json:"required"`
	Why      string `json:"why,omitempty"`
}

func (a *app) printProbes(s probes.Summary) error {
	through := s.Probes - s.Refused
	if a.json {
		layers := make([]layerJSON, 0, len(s.Layers))
		for _, l := range s.Layers {
			layers = append(layers, layerJSON(l))
		}
		if err := a.printJSON(struct {
			Type    string      `json:"type"`
			Probes  int         `json:"probes"`
			Refused int         `json:"refused"`
			Through int         `json:"through"`
			Passed  bool        `json:"passed"`
			Layers  []layerJSON `json:"layers"`
		}{"summary", s.Probes, s.Refused, through, s.Passed(), layers}); err != nil {
			return err
		}
	} else {
		a.printLayers(s.Layers)
	}
	if s.Passed() {
		if !a.json {
			fmt.Fprintf(a.stdout, "\nAll %d attempts were refused.\n", s.Probes)
		}
		return nil
	}
	return &failure{
		code: exitFailed, what: fmt.Sprintf("%d of %d attempts got through; a hostile task could do the same", through, s.Probes),
		next: "give no CPU until this is understood: gotong up --slots 0",
	}
}

// printLayers says which walls there are, and why one is missing.
func (a *app) printLayers(layers []sandbox.Layer) {
	var active []string
	for _, l := range layers {
		if l.Active {
			active = append(active, l.Name)
		}
	}
	fmt.Fprintf(a.stdout, "\nlayers: %s\n", strings.Join(active, ", "))
	for _, l := range layers {
		if !l.Active {
			fmt.Fprintf(a.stdout, "without %s: %s\n", l.Name, printable(l.Why))
		}
	}
	if os.Geteuid() == 0 {
		fmt.Fprintln(a.stdout, "This was tried as root; a peer need not be root.")
	}
}
