package page

import (
	"net/http"
	"strings"

	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/catalog"
)

// editView is the view of the form for a description.
type editView struct {
	Name, Shown, Short, Long string
	Problem                  string
}

// edit shows the form.
func (p *Pages) edit(w http.ResponseWriter, r *http.Request) {
	e, _, err := p.editable(r)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	p.render(w, r, http.StatusOK, "edit", "Edit "+e.Shown(), editView{e.Name, e.Shown(), e.Short, e.Long, ""})
}

// editable gives the repository that a request is about if the visitor may describe it.
func (p *Pages) editable(r *http.Request) (catalog.Entry, access.Subject, error) {
	who, _ := p.visitor(r)
	name := r.PathValue("name")
	if who.Anonymous() {
		return catalog.Entry{}, who, fault.New(fault.Unauthorized, "Descriptions are written by people who have signed in.")
	}
	if err := p.may(r, who, name, access.Admin); err != nil {
		return catalog.Entry{}, who, err
	}
	e, err := p.cfg.Catalog.Entry(name)
	if err != nil {
		return e, who, notFound(name)
	}
	return e, who, nil
}

// errForm is the answer to a POST that is not from one of our forms.
var errForm = fault.New(fault.Forbidden, "The form was too old. Go back, load the page again and try once more.")

// save writes a description.
func (p *Pages) save(w http.ResponseWriter, r *http.Request) {
	if _, s := p.visitor(r); !p.fromOurForm(r, s) {
		p.fail(w, r, errForm)
		return
	}
	e, who, err := p.editable(r)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	d := catalog.Description{Short: strings.TrimSpace(r.PostFormValue("short")), Long: strings.ReplaceAll(r.PostFormValue("long"), "\r\n", "\n")}
	err = p.cfg.Catalog.Describe(r.Context(), who, e.Name, d)
	if fault.Is(err, fault.Invalid) {
		p.render(w, r, http.StatusBadRequest, "edit", "Edit "+e.Shown(), editView{e.Name, e.Shown(), d.Short, d.Long, err.Error()})
		return
	}
	if err != nil {
		p.fail(w, r, err)
		return
	}
	http.Redirect(w, r, "/r/"+e.Name, http.StatusSeeOther)
}

// star gives or takes a star.
func (p *Pages) star(w http.ResponseWriter, r *http.Request) {
	who, s := p.visitor(r)
	if !p.fromOurForm(r, s) {
		p.fail(w, r, errForm)
		return
	}
	name := r.PathValue("name")
	if err := p.may(r, who, name, access.Pull); err != nil {
		p.fail(w, r, err)
		return
	}
	err := p.cfg.Catalog.Star(r.Context(), who.Name, name, r.PostFormValue("on") == "1")
	if fault.Is(err, fault.NotFound) {
		err = notFound(name)
	}
	if err != nil {
		p.fail(w, r, err)
		return
	}
	http.Redirect(w, r, "/r/"+name, http.StatusSeeOther)
}
