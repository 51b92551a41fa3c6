#include "report/page_style.h"

#include "report/scale.h"
#include "report/svg.h"

// Series colours: told apart with any colour vision (after Okabe and Ito 2008), at least 3:1 on the
// page.
static const struct {
    const char *light, *dark;
} series[EM_SERIES_COLOURS] = {
    {"#c2410c", "#ff8f52"}, {"#0067a5", "#58b0ee"}, {"#00805e", "#3fcfa2"}, {"#a8508a", "#e795c8"},
    {"#7a6200", "#dcc04a"}, {"#5a4fb0", "#a9a0ef"}, {"#3a7f94", "#8fd3e6"}, {"#55534e", "#c9c6bf"},
};

// In two parts: C17 promises string literals of 4095 characters only.
static const char layout[] =
    "*{box-sizing:border-box}"
    "html{font:15px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;"
    "background:var(--page);color:var(--ink);-webkit-text-size-adjust:100%}"
    "body{margin:0 auto;max-width:1120px;padding:40px 28px 72px}"
    "header{border-top:4px solid var(--accent);padding-top:18px}"
    "h1{font-size:27px;line-height:1.2;letter-spacing:-.015em;margin:0;font-weight:650}"
    "h2{font-size:18px;letter-spacing:-.005em;margin:52px 0 2px;font-weight:650}"
    "h3{font-size:14px;margin:0 0 6px;font-weight:600}"
    "p{margin:4px 0 14px;color:var(--soft);max-width:76ch}"
    "header p{margin:6px 0 0}"
    "small,.note{font-size:13px;color:var(--soft);font-weight:400}"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:1px;margin:"
    "26px 0 0;"
    "background:var(--rule);border:1px solid var(--rule);border-radius:8px;overflow:hidden}"
    ".tiles div{background:var(--card);padding:12px 16px}"
    ".tiles dt{font-size:12.5px;color:var(--soft)}"
    ".tiles dd{margin:2px 0 0;font-size:20px;font-weight:600;letter-spacing:-.01em;"
    "font-variant-numeric:tabular-nums}"
    ".warn{margin:22px 0 0;padding:11px 16px;border-left:4px solid "
    "var(--s0);background:var(--card);"
    "color:var(--ink);max-width:none;border-radius:0 8px 8px 0}"
    ".grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:"
    "20px}"
    ".card,figure{background:var(--card);border:1px solid var(--rule);border-radius:8px;margin:0;"
    "padding:14px 16px;min-width:0}"
    "figcaption{font-size:14px;font-weight:600;margin-bottom:8px}"
    "figcaption small{margin-left:4px}"
    "svg{display:block;width:100%;height:auto;overflow:visible}"
    "svg text{font-size:11.5px;fill:var(--soft);font-variant-numeric:tabular-nums}"
    ".ty,.tl{text-anchor:end}.tx,.tc{text-anchor:middle}svg .name{fill:var(--ink)}"
    "svg .tc{font-size:11px}"
    ".gl{stroke:var(--rule)}.axis,.tick{stroke:var(--faint)}"
    ".line,.raw{fill:none;stroke-linejoin:round;stroke-linecap:round}"
    ".line{stroke-width:2}.raw{stroke-width:1;opacity:.28}"
    ".line.s1{stroke-dasharray:7 3}.line.s2{stroke-dasharray:2 3}.line.s3{stroke-dasharray:9 3 2 3}"
    ".line.s4{stroke-dasharray:4 4}.line.s5{stroke-dasharray:12 4}"
    ".line.s6{stroke-dasharray:2 5}.line.s7{stroke-dasharray:9 3 2 3 2 3}"
    "svg .end{font-weight:600}svg .end .v{font-weight:400}"
    ".cross{stroke:var(--faint);stroke-dasharray:3 3}.dot{fill:#000;stroke:#fff;stroke-width:.7}";

static const char tables_and_text[] =
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}"
    "th,td{padding:7px 12px 7px 0;text-align:right;border-bottom:1px solid "
    "var(--rule);white-space:nowrap}"
    "th{font-size:12.5px;font-weight:500;color:var(--soft);vertical-align:bottom}"
    "tbody th{font-size:inherit;font-weight:600;color:var(--ink)}"
    "th:first-child,td:first-child{text-align:left}"
    "thead tr+tr th:first-child{text-align:right}th.of{text-align:center;padding-left:30px;"
    "border-bottom:0;color:var(--ink);padding-bottom:0}"
    "tbody tr:last-child>*{border-bottom:0}tr.sum>*{border-top:1px solid var(--faint)}"
    "td.best{font-weight:650}td.bar{width:34%;padding-right:0}td.dim,.dim{color:var(--soft)}"
    ".facts th{font-weight:400;color:var(--soft);text-align:left}.facts td{white-space:normal;"
    "overflow-wrap:anywhere;padding-right:0}"
    ".scroll{overflow-x:auto}.alone{max-width:560px}"
    "pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;"
    "font:12.5px/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}"
    "pre b{background:var(--mark);font-weight:600;border-radius:2px;box-decoration-break:clone}"
    ".sample pre{max-height:21em;overflow:auto}"
    ".who pre{line-height:2.1}.who span{border-bottom:3px solid;padding:1px "
    "1px;box-decoration-break:clone;-webkit-box-decoration-break:clone}"
    ".who .u1{border-bottom-style:dotted}.who .u2{border-bottom-style:dashed}"
    ".who .u3{border-bottom-style:double}.who .none{border-bottom-color:transparent}"
    ".who sup{font-size:9px;font-weight:700;line-height:1;padding:0 "
    "2px;margin-right:1px;border-radius:2px;color:var(--card)}"
    "details{margin-top:14px}summary{cursor:pointer;font-weight:600;font-size:14px}"
    "details[open] summary{margin-bottom:12px}"
    ".legend{max-width:380px;margin:2px 0 14px}"
    ".key{display:inline-block;width:11px;height:11px;margin:0 5px 0 14px;vertical-align:-1px}"
    ".b0{fill:var(--s0)}.b1{fill:var(--s1)}.b2{fill:var(--card);stroke:var(--faint);stroke-width:2}"
    ".key:first-child{margin-left:0}"
    ".k0{background:var(--s0);border-radius:2px}.k1{border-left:3px solid var(--s1);width:5px}"
    ".k2{border:2px solid var(--faint);border-radius:50%}"
    "footer{margin-top:56px;padding-top:14px;border-top:1px solid var(--rule);font-size:13px;"
    "color:var(--soft)}"
    "#tip{position:fixed;pointer-events:none;z-index:9;background:var(--ink);color:var(--page);"
    "font-size:12.5px;line-height:1.45;padding:6px 10px;border-radius:6px;max-width:320px;"
    "font-variant-numeric:tabular-nums;white-space:pre}"
    "@media(max-width:640px){body{padding:24px 16px 48px}td.bar,th.bar,.wide{display:none}"
    "svg text{font-size:14px}}"
    "@media print{body{max-width:none;padding:0}.card,figure{break-inside:avoid}.sample "
    "pre{max-height:none}}";

static ember_status palette(struct em_buf *out, bool dark)
{
    EM_TRY(
        em_buf_puts(out, dark ? "--page:#161514;--card:#1e1d1b;--ink:#ecebe7;--soft:#a3a099;"
                                "--faint:#6a6761;--rule:#33312e;--accent:#ff7a33;--mark:#43301f;"
                              : "--page:#fbfaf8;--card:#ffffff;--ink:#1d1c1a;--soft:#66635d;"
                                "--faint:#a5a29b;--rule:#e5e2dc;--accent:#d9480f;--mark:#ffe8d6;"));
    for (size_t i = 0; i < EM_SERIES_COLOURS; i++)
        EM_TRY(em_buf_printf(out, "--s%zu:%s;", i, dark ? series[i].dark : series[i].light));
    for (int v = -EM_LEVELS; v <= EM_LEVELS; v++) {
        const struct em_rgb c = em_level_colour(v, dark);
        EM_TRY(em_buf_printf(out, "--h%d:#%02x%02x%02x;", v + EM_LEVELS, c.r, c.g, c.b));
        EM_TRY(em_buf_printf(out, "--c%d:%s;", v + EM_LEVELS,
                             em_level_text_is_black(v, dark) ? "#000" : "#fff"));
    }
    return EMBER_OK;
}

ember_status em_page_style(struct em_buf *out)
{
    EM_TRY(em_buf_puts(out, ":root{color-scheme:light dark;"));
    EM_TRY(palette(out, false));
    EM_TRY(em_buf_puts(out, "}@media(prefers-color-scheme:dark){:root{"));
    EM_TRY(palette(out, true));
    EM_TRY(em_buf_puts(out, "}}"));
    EM_TRY(em_buf_puts(out, layout));
    EM_TRY(em_buf_puts(out, tables_and_text));
    for (size_t i = 0; i < EM_SERIES_COLOURS; i++)
        EM_TRY(em_buf_printf(
            out, "path.s%zu{stroke:var(--s%zu)}svg text.s%zu,circle.s%zu{fill:var(--s%zu)}", i, i,
            i, i, i));
    for (size_t i = 0; i < EM_SERIES_COLOURS; i++)
        EM_TRY(em_buf_printf(out,
                             ".who .e%zu{border-color:var(--s%zu);background:color-mix(in "
                             "srgb,var(--s%zu) 18%%,transparent)}.e%zu sup{background:var(--s%zu)}",
                             i, i, i, i, i));
    for (int v = 0; v <= 2 * EM_LEVELS; v++)
        EM_TRY(em_buf_printf(out, ".h%d{fill:var(--h%d)}svg .c%d{fill:var(--c%d)}", v, v, v, v));
    return EMBER_OK;
}

// Reads values back from the drawn lines, so that the page holds each series once.
const char em_page_script[] =
    "(function(){'use strict';\n"
    "var "
    "tip=document.createElement('div');tip.id='tip';tip.hidden=true;document.body.appendChild(tip);"
    "\n"
    "function show(e,text){tip.textContent=text;tip.hidden=false;\n"
    " var w=tip.offsetWidth,h=tip.offsetHeight,x=e.clientX+14,y=e.clientY+14;\n"
    " if(x+w>innerWidth-8)x=e.clientX-w-14;if(y+h>innerHeight-8)y=e.clientY-h-14;\n"
    " tip.style.left=Math.max(4,x)+'px';tip.style.top=Math.max(4,y)+'px'}\n"
    "function hide(){tip.hidden=true}\n"
    "document.querySelectorAll('svg title').forEach(function(t){var "
    "cell=t.parentNode,text=t.textContent;\n"
    " cell.setAttribute('aria-label',text);t.remove();\n"
    " cell.addEventListener('pointermove',function(e){show(e,text)});\n"
    " cell.addEventListener('pointerleave',hide)});\n"
    "document.querySelectorAll('.curve svg').forEach(function(svg){var d=svg.dataset,\n"
    " box=d.box.split(' ').map(Number),x0=+d.x0,x1=+d.x1,y0=+d.y0,y1=+d.y1,\n"
    " lines=Array.from(svg.querySelectorAll('.line')).map(function(p){\n"
    "  return{name:p.dataset.name,at:(p.getAttribute('d')||'').split(/[ML]/).filter(Boolean)\n"
    "   .map(function(s){return s.split(' ').map(Number)})}}),\n"
    " cross=document.createElementNS('http://www.w3.org/2000/svg','path');\n"
    " cross.setAttribute('class','cross');svg.appendChild(cross);\n"
    " svg.addEventListener('pointermove',function(e){\n"
    "  var m=svg.getScreenCTM();if(!m)return;var x=(e.clientX-m.e)/m.a;\n"
    "  if(x<box[0]-6||x>box[1]+6){cross.setAttribute('d','');hide();return}\n"
    "  x=Math.min(Math.max(x,box[0]),box[1]);cross.setAttribute('d','M'+x+' '+box[2]+'V'+box[3]);\n"
    "  var v=x0+(x1-x0)*(x-box[0])/(box[1]-box[0]),\n"
    "   text=d.xunit+' '+(Math.abs(v)<100?+v.toPrecision(3):Math.round(v));\n"
    "  lines.forEach(function(l){var best=null;l.at.forEach(function(p){\n"
    "    if(!best||Math.abs(p[0]-x)<Math.abs(best[0]-x))best=p});\n"
    "   if(!best)return;var f=(box[2]-best[1])/(box[2]-box[3]),\n"
    "    y=d.log==='1'?y0*Math.pow(y1/y0,f):y0+(y1-y0)*f;\n"
    "   text+='\\n'+l.name+' "
    "'+(Math.abs(y)>=10000?Math.round(y).toLocaleString('en'):y.toPrecision(4))});\n"
    "  show(e,text)});\n"
    " svg.addEventListener('pointerleave',function(){cross.setAttribute('d','');hide()})});\n"
    "})();\n";
