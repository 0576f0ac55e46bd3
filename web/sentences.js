// The sentences of reports in the page's language. The server writes English, {n} stands for what it puts in; a line
// that is not here is shown as it came. A test finds every English text in the sources that write it.
import { pageLanguage } from "./texts.js";

/** Per sentence: English, Chinese, Japanese, Korean, French. */
const SENTENCES = [
  // calibration/report.py
  ["Accepted: {0}.", "已接受：{0}。", "採用：{0}。", "채택: {0}.", "Accepté : {0}."],
  [
    "No candidate beat the stock sampler on the search prompts: identity recommended.",
    "在搜索提示词上没有候选优于原采样器：建议不使用（恒等）。",
    "探索用プロンプトで元のサンプラーに勝る候補はありません：恒等（変更なし）を推奨。",
    "탐색 프롬프트에서 원래 샘플러보다 나은 후보가 없습니다: 항등(변경 없음) 권장.",
    "Aucun candidat n’a fait mieux que l’échantillonneur d’origine sur les prompts de recherche : identité recommandée.",
  ],
  [
    "Worse than the stock sampler: {0}. Identity recommended.",
    "比原采样器更差：{0}。建议不使用（恒等）。",
    "元のサンプラーより悪化：{0}。恒等（変更なし）を推奨。",
    "원래 샘플러보다 나쁨: {0}. 항등(변경 없음) 권장.",
    "Moins bon que l’échantillonneur d’origine : {0}. Identité recommandée.",
  ],
  [
    "No gain beyond noise: {0}. Identity recommended.",
    "增益未超出噪声：{0}。建议不使用（恒等）。",
    "ノイズを超える改善なし：{0}。恒等（変更なし）を推奨。",
    "잡음을 넘는 이득 없음: {0}. 항등(변경 없음) 권장.",
    "Aucun gain au-delà du bruit : {0}. Identité recommandée.",
  ],
  [
    "{0} came out broken (not finite). Identity recommended.",
    "{0} 已损坏（数值非有限）。建议不使用（恒等）。",
    "{0} が壊れました（有限でない値）。恒等（変更なし）を推奨。",
    "{0} 이(가) 깨졌습니다(유한하지 않음). 항등(변경 없음) 권장.",
    "{0} : image abîmée (valeurs non finies). Identité recommandée.",
  ],
  [
    "Gains JAQ, but drifts in {0}: look before you trust it.",
    "JAQ 有增益，但 {0} 有漂移：请先看图再采信。",
    "JAQ は改善しますが、{0} がずれます：信じる前に画像を見てください。",
    "JAQ는 오르지만 {0}이(가) 변합니다: 믿기 전에 그림을 보세요.",
    "JAQ progresse, mais {0} dérive : regardez avant de vous y fier.",
  ],
  ["The candidate drifts in {0}.", "候选在 {0} 上有漂移。", "候補は {0} がずれます。", "후보의 {0}이(가) 변합니다.", "Le candidat dérive : {0}."],
  ["Paired gains: {0}.", "成对增益：{0}。", "対にした改善：{0}。", "짝지은 이득: {0}.", "Gains appariés : {0}."],
  ["Not optimised: {0}.", "未优化的指标：{0}。", "最適化していない指標：{0}。", "최적화하지 않은 지표: {0}.", "Non optimisé : {0}."],
  [
    "What falls, clear of noise: {0}. Look before you trust it.",
    "明显下降（超出噪声）：{0}。请先看图再采信。",
    "ノイズを超えて下がったもの：{0}。信じる前に画像を見てください。",
    "잡음을 넘어 떨어진 것: {0}. 믿기 전에 그림을 보세요.",
    "Ce qui baisse, au-delà du bruit : {0}. Regardez avant de vous y fier.",
  ],
  [
    "The search's own prompts promised {0}, held-out ones give {1}: {2} was luck.",
    "搜索用提示词预期 {0}，保留的提示词得到 {1}：其中 {2} 是运气。",
    "探索用プロンプトでは {0}、取り置いたプロンプトでは {1}：{2} は運でした。",
    "탐색 프롬프트는 {0}을(를) 약속했고, 남겨 둔 프롬프트는 {1}입니다: {2}은(는) 운이었습니다.",
    "Les prompts de recherche promettaient {0}, ceux mis de côté donnent {1} : {2} de chance.",
  ],
  [
    "On the border of the trust region: {0}. The optimum may lie outside.",
    "位于信任区域边界：{0}。最优值可能在区域之外。",
    "信頼領域の境界上：{0}。最適値は外にあるかもしれません。",
    "신뢰 영역의 경계: {0}. 최적값은 바깥에 있을 수 있습니다.",
    "Au bord de la région de confiance : {0}. L’optimum est peut-être dehors.",
  ],
  [
    "Control: the same coefficients on the full-precision model change its JAQ by {0}.",
    "对照：同样的系数使全精度模型的 JAQ 变化 {0}。",
    "対照：同じ係数で元の精度のモデルの JAQ は {0} 変わります。",
    "대조: 같은 계수로 전체 정밀도 모델의 JAQ가 {0} 변합니다.",
    "Contrôle : les mêmes coefficients changent de {0} le JAQ du modèle en pleine précision.",
  ],
  [
    "Control: a search of its own changes the full-precision model's JAQ by {0} (accepted).",
    "对照：全精度模型自身的搜索使其 JAQ 变化 {0}（已接受）。",
    "対照：元の精度のモデル自身の探索で JAQ は {0} 変わります（採用）。",
    "대조: 전체 정밀도 모델 자체의 탐색으로 JAQ가 {0} 변합니다(채택).",
    "Contrôle : une recherche propre change de {0} le JAQ du modèle en pleine précision (accepté).",
  ],
  [
    "Control: a search of its own changes the full-precision model's JAQ by {0} (not accepted).",
    "对照：全精度模型自身的搜索使其 JAQ 变化 {0}（未接受）。",
    "対照：元の精度のモデル自身の探索で JAQ は {0} 変わります（不採用）。",
    "대조: 전체 정밀도 모델 자체의 탐색으로 JAQ가 {0} 변합니다(채택 안 함).",
    "Contrôle : une recherche propre change de {0} le JAQ du modèle en pleine précision (non accepté).",
  ],
  [
    "So the gain is repair of quantisation: the full-precision model found none of its own.",
    "因此增益来自对量化的修复：全精度模型自身没有找到增益。",
    "つまり改善は量子化の修復です：元の精度のモデルでは見つかりませんでした。",
    "따라서 이득은 양자화의 복구입니다: 전체 정밀도 모델은 스스로 이득을 찾지 못했습니다.",
    "Le gain répare donc la quantification : le modèle en pleine précision n’en a trouvé aucun.",
  ],
  [
    "So all of the gain may be re-tuning of the sampler: the full-precision model gains as much.",
    "因此全部增益可能只是重新调整采样器：全精度模型获得同样的增益。",
    "つまり改善はすべてサンプラーの再調整かもしれません：元の精度のモデルも同じだけ改善します。",
    "따라서 이득 전부가 샘플러 재조정일 수 있습니다: 전체 정밀도 모델도 그만큼 오릅니다.",
    "Tout le gain peut donc venir d’un réglage de l’échantillonneur : le modèle en pleine précision gagne autant.",
  ],
  [
    "So about {0} % of the gain is repair of quantisation, the rest re-tuning of the sampler.",
    "因此约 {0} % 的增益是对量化的修复，其余是重新调整采样器。",
    "つまり改善の約 {0} % が量子化の修復、残りはサンプラーの再調整です。",
    "따라서 이득의 약 {0} %가 양자화의 복구이고 나머지는 샘플러 재조정입니다.",
    "Environ {0} % du gain répare donc la quantification, le reste règle l’échantillonneur.",
  ],
  [
    "Held: a candidate farther away than the stock sampler could not win.",
    "保持：比原采样器偏离更远的候选不能胜出。",
    "保持：元のサンプラーより遠い候補は選ばれません。",
    "유지: 원래 샘플러보다 먼 후보는 이길 수 없습니다.",
    "Tenu : un candidat plus éloigné que l’échantillonneur d’origine ne pouvait pas gagner.",
  ],
  ["Cost: {0}; {1}.", "开销：{0}；{1}。", "費用：{0}；{1}。", "비용: {0}; {1}.", "Coût : {0} ; {1}."],
  [
    "Warm start: {0} were tried as candidates.",
    "热启动：{0} 也作为候选试过。",
    "ウォームスタート：{0} も候補として試しました。",
    "웜 스타트: {0}도 후보로 시도했습니다.",
    "Départ à chaud : {0} essayés comme candidats.",
  ],
  // qsched_core/quant/report.py
  ["{0} quantised.", "已量化 {0}。", "{0} を量子化しました。", "{0} 양자화함.", "{0} quantifiées."],
  [
    "Model {0} at FP16 -> {1} ({2}x). Mean relative weight error {3}.",
    "模型在 FP16 下为 {0}，现为 {1}（{2} 倍）。权重平均相对误差 {3}。",
    "モデルは FP16 で {0}、いまは {1}（{2} 倍）。重みの平均相対誤差 {3}。",
    "모델은 FP16에서 {0}, 지금은 {1}({2}배). 가중치 평균 상대 오차 {3}.",
    "Modèle {0} en FP16 -> {1} ({2}x). Erreur relative moyenne des poids {3}.",
  ],
  [
    "Convolutions round their weights only, activations stay in floating point.",
    "卷积只对权重取整，激活保持浮点。",
    "畳み込みは重みだけを丸め、活性は浮動小数点のままです。",
    "합성곱은 가중치만 반올림하고 활성값은 부동소수점으로 둡니다.",
    "Les convolutions n’arrondissent que leurs poids, les activations restent en virgule flottante.",
  ],
  ["Kept {0}: {1}.", "保留 {0} 个：{1}。", "そのまま {0}：{1}。", "그대로 둠 {0}: {1}.", "Gardées {0} : {1}."],
  [
    "Largest error {0}: {1} ({2}).",
    "最大误差 {0}：{1}（{2}）。",
    "最大の誤差 {0}：{1}（{2}）。",
    "가장 큰 오차 {0}: {1} ({2}).",
    "Plus grande erreur {0} : {1} ({2}).",
  ],
  // nodes/presets.py, nodes/quantize_model.py
  ["Saved {0}", "已保存 {0}", "保存しました：{0}", "저장함: {0}", "Enregistré : {0}"],
  // qsched_core/environment.py
  [
    "Q-Sched {0}: all is fine",
    "Q-Sched {0}：一切正常",
    "Q-Sched {0}：問題ありません",
    "Q-Sched {0}: 모두 정상",
    "Q-Sched {0} : tout va bien",
  ],
  [
    "Q-Sched {0}: {1} thing to do",
    "Q-Sched {0}：有 {1} 件事要做",
    "Q-Sched {0}：{1} 件の対応が必要",
    "Q-Sched {0}: 할 일 {1}개",
    "Q-Sched {0} : {1} chose à faire",
  ],
  [
    "Q-Sched {0}: {1} things to do",
    "Q-Sched {0}：有 {1} 件事要做",
    "Q-Sched {0}：{1} 件の対応が必要",
    "Q-Sched {0}: 할 일 {1}개",
    "Q-Sched {0} : {1} choses à faire",
  ],
];

// The more of it is fixed, the surer it is meant.
const fixed = (texts) => texts[0].replace(/\{\d\}/g, "").length;
const KNOWN = SENTENCES.map((texts) => ({ texts, pattern: patternOf(texts[0]) })).sort(
  (a, b) => fixed(b.texts) - fixed(a.texts),
);

/** @param {string} report lines of English @returns {string} those that are known in the page's language */
export function translated(report) {
  const language = pageLanguage();
  return language === 0 ? report : report.split("\n").map((line) => translatedLine(line, language)).join("\n");
}

function translatedLine(line, language) {
  for (const { texts, pattern } of KNOWN) {
    const found = pattern.exec(line);
    if (found) return texts[language].replace(/\{(\d)\}/g, (whole, n) => found[Number(n) + 1]);
  }
  return line;
}

function patternOf(english) {
  const parts = english.split(/\{\d\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join("(.+?)")}$`);
}
