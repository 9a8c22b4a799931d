// Package page is what a person sees of the registry in a browser: repositories, tags, layers, history, what is
// attached to an image, search, sign-in, stars and descriptions.
//
// # Words
//
// A page is made on the server from one template and the layout around it; there is no script at all, and nothing is
// fetched from elsewhere: one style sheet, one icon, both in the program. A view is what a template is given: a value with
// everything looked up and every right asked. A session is somebody who has signed in.
//
//	GET  /                          repositories that the visitor may pull, by rank; ?page=, ?sort=pushed, pulls or name
//	GET  /search?q=WORDS            the same, of those that have the words
//	GET  /o/ORG                     those of one organisation
//	GET  /r/NAME                    a repository: description, tags; ?page=
//	GET  /r/NAME:TAG, /r/NAME@DIGEST   an image: layers, history, settings, what is attached; ?platform=
//	GET  /edit/NAME, POST /edit/NAME   its description, for whoever has the admin right
//	POST /star/NAME                 on=1 gives a star, on=0 takes it
//	GET  /signin, POST /signin, POST /signout
//	GET  /static/style.css, /static/icon.svg
//
// # Trust
//
// Names, labels, descriptions and history come from strangers. html/template escapes them by place; the long
// description is Markdown, rendered with raw HTML left out, with links to http, https and mailto only and images turned into
// links; and the Content-Security-Policy allows no script, no frame and no foreign source, should both fail.
//
// A session is a random number in a cookie (HttpOnly, SameSite=Lax, Secure and __Host- over TLS); the server keeps its
// digest, with who signed in, in memory: a restart signs everybody out. It ends after 12 hours, or 2 without a request. Every POST
// must come from a page of this origin (Sec-Fetch-Site or Origin) and bring the session's form token; signing in, when there is no
// session yet, brings one that must equal a cookie's.
//
// What a visitor may not pull does not exist for him: the page says "not found", also about things that are there.
//
// The package never decides a right (access.Decider does), never checks a password (Config.SignIn does) and never
// changes content.
package page
