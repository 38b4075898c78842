# gnuplot predicted_measured.gp draws predicted_measured.svg from predicted_measured.tsv
ep_name = 'predicted_measured'
array ep_title[1]
ep_title[1] = 'Predicted against measured time'
array ep_sub[5]
ep_sub[1] = '1 cases of dispatch and combine, measured exchange time'
ep_sub[2] = '(median of visits); 0 of 1 predictions held out (by fits'
ep_sub[3] = 'that did not see the case''s skew), the others in sample.'
ep_sub[4] = 'On planted: no machine: synthetic records of'
ep_sub[5] = 'tests/planted.c; 4 ranks on 1 node.'
array ep_series[2]
ep_series[1] = 'M0, plain bytes/bandwidth: median error 0.0 %'
ep_series[2] = 'no fit could choose a rung'
ep_x_label = 'measured, ms'
ep_y_label = 'predicted, ms'
ep_min = 0.0509780576
ep_max = 0.101956115
# SPDX-License-Identifier: Apache-2.0
# The look of every figure: size, fonts, colours, header, legend. Comes before each figure's own script;
# before it stand the texts of the run at hand (ep_name, ep_title, ep_sub, ...) and nothing else.
# Width 440 at font 13 and more: in a page 360 px wide letters are still about 10 px high.
ep_w = 440
ep_font = 'sans-serif'
ep_head = 14 + 23 * |ep_title| + 17 * |ep_sub|
set encoding utf8
set datafile separator tab
set datafile commentschars ''
set datafile columnheaders
# Okabe and Ito's colours, each with a point shape and a dash of its own.
set linetype 1 lc rgb '#0072B2' pt 7 ps 0.7 lw 2 dt 1
set linetype 2 lc rgb '#D55E00' pt 5 ps 0.65 lw 2 dt (9,4)
set linetype 3 lc rgb '#009E73' pt 9 ps 0.9 lw 2 dt (3,3)
set linetype 4 lc rgb '#CC79A7' pt 13 ps 0.9 lw 2 dt (12,3,3,3)
set linetype 5 lc rgb '#E69F00' pt 11 ps 0.9 lw 2 dt (16,4)
set linetype 6 lc rgb '#56B4E9' pt 4 ps 0.75 lw 2 dt (6,2,2,2,2,2)
set linetype 7 lc rgb '#000000' pt 6 ps 0.75 lw 2 dt (2,4)
set linetype cycle 7
set style line 100 lc rgb '#dddddd' lw 0.6 dt 1
set grid xtics ytics ls 100
set border 3 lw 0.8 lc rgb '#333333'
set tics nomirror out scale 0.5 font ep_font.',14'
set xtics offset 0,0.35
set key font ep_font.',14' samplen 2.4 spacing 1.1 Left reverse vertical maxcols 1
# Pixels from the left and the top, as fractions of the drawing.
sx(pixels) = real(pixels) / ep_w
sy(pixels) = 1 - real(pixels) / ep_h
series(i, x) = column('series') == i ? x : NaN
# Evaluated by a figure's script once it has set ep_h.
ep_open = "set terminal svg size ep_w,ep_h dynamic font ep_font.',15' noenhanced linewidth 1.1 name ep_name background rgb 'white'; set output ep_name.'.svg'; do for [ep_i = 1:|ep_title|] { set label ep_i ep_title[ep_i] at screen sx(10),sy(22 + 23 * (ep_i - 1)) left font ep_font.',18' }; do for [ep_i = 1:|ep_sub|] { set label 100 + ep_i ep_sub[ep_i] at screen sx(10),sy(18 + 23 * |ep_title| + 17 * (ep_i - 1)) left font ep_font.',13' tc rgb '#333333' }"
# Ticks of bytes: powers of 2, ep_x_step apart.
bytes(x) = x < 2**10 ? sprintf('%.0f B', x) : x < 2**20 ? sprintf('%.0f KiB', x / 2.0**10) : x < 2**30 ? sprintf('%.0f MiB', x / 2.0**20) : sprintf('%.0f GiB', x / 2.0**30)
ep_byte_tics = "set xtics (); do for [ep_i = 0:50:int(log(ep_x_step) / log(2) + 0.5)] { set xtics add (bytes(2.0**ep_i) 2.0**ep_i) }"
# Place of the plot from ep_top to ep_bottom pixels below the top, and its y label.
ep_place = "set tmargin at screen sy(ep_top); set bmargin at screen sy(ep_bottom); set lmargin at screen sx(74); set rmargin at screen sx(ep_w - 14); set label 300 ep_y_label at screen sx(16),sy((ep_top + ep_bottom) / 2.0) center rotate by 90 font ep_font.',14'"
# SPDX-License-Identifier: Apache-2.0
# Predicted against measured time, both logarithmic, with a band of +-10 %.
ep_top = ep_head + 21 * (|ep_series| + 1) + 16
ep_bottom = ep_top + 400
ep_h = ep_bottom + 66
eval ep_open
eval ep_place
set key at screen sx(4),sy(ep_head) top left
set logscale xy 10
set format x '%g'
set format y '%g'
set xrange [ep_min:ep_max]
set yrange [ep_min:ep_max]
set xlabel ep_x_label offset 0,0.7
set style fill solid 0.45 noborder
file = ep_name.'.tsv'
set samples 200
# M0 open, the rung that each fit chose filled and smaller: where M0 was chosen, both are there.
array point[2] = [6, 7]
array size[2] = [0.9, 0.5]
array tone[2] = [2, 1]
mine(i, x) = (i == 1 ? stringcolumn('rung') eq 'M0' : column('chosen') == 1) ? x : NaN
plot '+' using 1:($1 * 0.9):($1 * 1.1) with filledcurves lc rgb '#c8c8c8' notitle, \
     x with lines lc rgb '#555555' lw 1 notitle, \
     for [i = 1:2] file using (mine(i, column('measured_s')) * 1e3):(column('predicted_s') * 1e3) with points lc tone[i] pt point[i] ps size[i] notitle, \
     for [i = 1:2] NaN with points lc tone[i] pt point[i] ps size[i] * 1.2 title ep_series[i], \
     NaN with boxes lc rgb '#c8c8c8' title 'band: within 10 % of the measured time'
